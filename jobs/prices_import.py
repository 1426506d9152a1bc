"""``imagemill prices import``: a price book made of a SkyPilot catalogue.

A catalogue's line is a machine in a zone with its on-demand and its spot price. Nothing is chosen
silently: lines that contradict each other are refused.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from conf.currencies import check_currency
from conf.errors import ConfigError
from conf.price_book import PriceBook, parse_book

_SUFFIXES = (".yaml", ".yml")
_OPTIONS = {"on-demand": "Price", "spot": "SpotPrice"}
_NEEDED = ("InstanceType", "Region", *_OPTIONS.values())
_FINEST = Decimal("1e-9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What a catalogue is asked for: only these regions and accelerators, all where there is none
    named."""

    provider: str
    version: str
    currency: str
    regions: Sequence[str]
    accelerators: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The book that was written, and how many prices the catalogue had that repeat another."""

    book: PriceBook
    repeated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quoted:
    """A price that a line of the catalogue says, of a machine with such shares."""

    line: int
    price: str
    shares: Mapping[str, float]

    def __str__(self) -> str:
        shares = "".join(f", {name} {count:g}" for name, count in self.shares.items())
        return f"{self.price}{shares} (line {self.line})"


_Key = tuple[str, str, str]
"""Instance type, region and purchase option."""
_Zones = dict[str, _Quoted]


def import_catalogue(catalogue: Path, target: Path, asked: Import) -> Imported:
    """Write a SkyPilot catalogue as a price book; prices finer than 1e-9 are rounded.

    Raises:
        ConfigError: the catalogue cannot be read, lacks a column, has nothing that was asked for
            or contradicts itself; that is no currency; or the book cannot be written.
    """
    _check_asked(target, asked)
    try:
        with catalogue.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            _check_columns(rows.fieldnames or (), catalogue)
            found, repeated = _prices(_wanted(rows, asked), catalogue)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {catalogue}: {error}") from error
    if not found:
        raise ConfigError(
            f"{catalogue} has no price of what was asked for: regions "
            f"{', '.join(asked.regions) or 'any'}, accelerators "
            f"{', '.join(asked.accelerators) or 'any'}"
        )
    entries = _entries(found, asked)
    plain = {"version": asked.version, "currency": asked.currency, "instances": entries}
    book = parse_book(plain, str(target))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    try:
        with target.open("x", encoding="utf-8") as out:
            out.write(f"# From {catalogue.name}; storage prices go in by hand.\n{text}")
    except FileExistsError as error:
        raise ConfigError(f"{target} exists; nothing was changed; choose another name") from error
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from error
    return Imported(book=book, repeated=repeated)


def _check_asked(target: Path, asked: Import) -> None:
    if target.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{target} would be no price book: pricing.book=… takes files that end in "
            f"{' or '.join(_SUFFIXES)}; nothing was written; name it {target.name}.yaml, say"
        )
    check_currency(asked.currency, "--currency", "SkyPilot's own catalogues are in USD")


def _check_columns(names: Iterable[str], catalogue: Path) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ConfigError(
            f"{catalogue} has no column {', '.join(missing)}; expected a SkyPilot catalogue: "
            "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Region,SpotPrice,Price,"
            "AvailabilityZone,GpuInfo"
        )


def _wanted(rows: csv.DictReader[str], asked: Import) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The lines that were asked for, with their numbers in the file."""
    for row in rows:
        here = not asked.regions or row["Region"] in asked.regions
        such = not asked.accelerators or (row.get("AcceleratorName") or "") in asked.accelerators
        if here and such and row["InstanceType"]:
            yield rows.line_num, row


def _prices(
    lines: Iterable[tuple[int, Mapping[str, str]]], catalogue: Path
) -> tuple[dict[_Key, _Zones], int]:
    """The prices by machine and zone, and how many were there once more."""
    found: dict[_Key, _Zones] = defaultdict(dict)
    repeated = 0
    for number, row in lines:
        for option, column in _OPTIONS.items():
            if not row[column]:
                continue
            quoted = _Quoted(line=number, price=_price(row, column, catalogue), shares=_shares(row))
            key, zone = (row["InstanceType"], row["Region"], option), _zone(row)
            before = found[key].setdefault(zone, quoted)
            if (before.price, before.shares) != (quoted.price, quoted.shares):
                raise ConfigError(_contradiction(catalogue, key, zone, (before, quoted)))
            repeated += before is not quoted
    return found, repeated


def _contradiction(catalogue: Path, key: _Key, zone: str, both: tuple[_Quoted, _Quoted]) -> str:
    kind, region, option = key
    return (
        f"{catalogue} has two prices of {kind} {option} in {zone or region}: {both[0]} and "
        f"{both[1]}; expected one; nothing was written; remove the line that is wrong, or leave it "
        "out with --region or --accelerator"
    )


def _zone(row: Mapping[str, str]) -> str:
    return row.get("AvailabilityZone") or ""


def _entries(found: Mapping[_Key, _Zones], asked: Import) -> list[dict[str, Any]]:
    """An entry a machine, region and option; one a zone where its zones differ."""
    entries = []
    for (kind, region, option), zones in sorted(found.items()):
        first = next(iter(zones.values()))
        apart = any((q.price, q.shares) != (first.price, first.shares) for q in zones.values())
        for zone, quoted in sorted(zones.items()) if apart else [("", first)]:
            place = {"provider": asked.provider, "region": region}
            place |= {"zone": zone} if zone else {}
            entries.append(
                place
                | {"instance_type": kind, "purchase_option": option}
                | {"price_per_hour": quoted.price, **quoted.shares}
            )
    return entries


def _price(row: Mapping[str, str], column: str, catalogue: Path) -> str:
    try:
        price = Decimal(row[column])
        kept = price.quantize(_FINEST, ROUND_HALF_UP)
    except InvalidOperation:
        price = kept = Decimal(-1)
    if not kept.is_finite() or price < 0 or (price and not kept):
        raise ConfigError(
            f"{catalogue}: {column} of {row['InstanceType']} in {row['Region']} is "
            f"'{row[column]}'; expected a number that is 0 or at least {_FINEST:f}"
        )
    return f"{kept.normalize():f}"


def _shares(row: Mapping[str, str]) -> dict[str, float]:
    """GPUs and vCPUs; what is no number above 0 is not known."""
    found = {}
    for name, column in (("gpus", "AcceleratorCount"), ("vcpus", "vCPUs")):
        try:
            count = float(row.get(column) or 0)
        except ValueError:
            continue
        if 0 < count < float("inf"):
            found[name] = count
    return found
