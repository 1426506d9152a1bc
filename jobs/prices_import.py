"""``imagemill prices import``: a price book made of a SkyPilot catalogue.

A catalogue's line is a machine in a zone with its on-demand and its spot price. Nothing is chosen
silently: lines that contradict each other are refused.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from conf.amounts import MOST_PRICE
from conf.currencies import check_currency
from conf.errors import ConfigError
from conf.price_book import PriceBook, parse_book
from jobs.figures import plural

_SUFFIXES = (".yaml", ".yml")
_OPTIONS = {"on-demand": "Price", "spot": "SpotPrice"}
_NEEDED = ("InstanceType", "Region", *_OPTIONS.values())
_FINEST = Decimal("1e-9")
_FEW = 10
"""How many of a catalogue's regions or accelerators are named."""
_SUCH = {"provider": "aws", "version": "2026-11"}


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


_Line = tuple[int, Mapping[str, str]]
"""A line of the catalogue and its number in the file."""
_Key = tuple[str, str, str]
"""Instance type, region and purchase option."""
_Zones = dict[str, _Quoted]


def import_catalogue(catalogue: Path, target: Path, asked: Import) -> Imported:
    """Write a SkyPilot catalogue as a price book; prices finer than 1e-9 are rounded.

    Raises:
        ConfigError: the catalogue cannot be read, lacks a column, has a line that is wrong,
            nothing of what was asked for or contradicts itself; something asked for is not sound;
            or the book cannot be written.
    """
    _check_asked(target, asked)
    lines = _read(catalogue)
    wanted = [line for line in lines if _wanted(line[1], asked)]
    for option, column, names in (
        ("--region", "Region", asked.regions),
        ("--accelerator", "AcceleratorName", asked.accelerators),
    ):
        _check_matched(option, names, column, (wanted, lines), catalogue)
    if not wanted:
        raise ConfigError(f"{catalogue} has no line with an instance type and a price")
    found, repeated = _prices(wanted, catalogue)
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
    for name, given in (("provider", asked.provider), ("version", asked.version)):
        if not given.strip():
            raise ConfigError(f"--{name} is '{given}'; expected text, such as {_SUCH[name]}")
    check_currency(asked.currency, "--currency", "SkyPilot's own catalogues are in USD")


def _check_columns(names: Iterable[str], catalogue: Path) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ConfigError(
            f"{catalogue} has no column {', '.join(missing)}; expected a SkyPilot catalogue: "
            "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Region,SpotPrice,Price,"
            "AvailabilityZone,GpuInfo"
        )


def _read(catalogue: Path) -> list[_Line]:
    """All lines; a byte-order mark, such as Excel writes, is none of the first column's name."""
    lines: list[_Line] = []
    try:
        with catalogue.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or ()
            _check_columns(names, catalogue)
            for row in rows:
                there = [value for name, value in row.items() if name is not None]
                count = sum(value is not None for value in there) + len(row.get(None, ()))
                if count != len(names):
                    raise ConfigError(
                        f"{catalogue}, line {rows.line_num} has {plural(count, 'field')}; expected "
                        f"{len(names)}, as its first line has; a comma within a field needs quotes "
                        "around the field, and numbers need none"
                    )
                lines.append((rows.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {catalogue}: {why}") from error
    return lines


def _wanted(row: Mapping[str, str], asked: Import) -> bool:
    """Whether a line has a price of a machine that was asked for."""
    here = not asked.regions or row["Region"] in asked.regions
    such = not asked.accelerators or _accelerator(row) in asked.accelerators
    priced = any(row[column] for column in _OPTIONS.values())
    return here and such and priced and bool(row["InstanceType"])


def _check_matched(
    option: str,
    names: Sequence[str],
    column: str,
    lines: tuple[Sequence[_Line], Sequence[_Line]],
    catalogue: Path,
) -> None:
    """Refuse names that none of the wanted lines has, out of all lines."""
    wanted, found = ({row.get(column) or "" for _, row in some} for some in lines)
    for name in names:
        if name not in wanted:
            known = sorted(found - {""})
            few = ", ".join(known[:_FEW]) + (", …" if len(known) > _FEW else "")
            raise ConfigError(
                f"{option} {name} matches no price in {catalogue} of what else was asked for; "
                f"its {column} column has {few or 'nothing'}; nothing was written; correct it, or "
                "leave it out"
            )


def _prices(lines: Iterable[_Line], catalogue: Path) -> tuple[dict[_Key, _Zones], int]:
    """The prices by machine and zone, and how many were there once more."""
    found: dict[_Key, _Zones] = defaultdict(dict)
    repeated = 0
    for number, row in lines:
        if not row["Region"].strip():
            raise ConfigError(
                f"{catalogue}, line {number}: {row['InstanceType']} has no Region; expected one: "
                "an entry without would hold for no node"
            )
        shares = _shares((number, row), catalogue)
        for option, column in _OPTIONS.items():
            if not row[column]:
                continue
            price = _price((number, row), column, catalogue)
            quoted = _Quoted(line=number, price=price, shares=shares)
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


def _price(line: _Line, column: str, catalogue: Path) -> str:
    number, row = line
    try:
        price = Decimal(row[column])
        kept = price.quantize(_FINEST, ROUND_HALF_UP)
    except InvalidOperation:
        price = kept = Decimal(-1)
    if not kept.is_finite() or price < 0 or (price and not kept) or price > MOST_PRICE:
        raise ConfigError(
            f"{catalogue}, line {number}: {column} of {row['InstanceType']} in {row['Region']} is "
            f"'{row[column]}'; expected a number that is 0 or at least {_FINEST:f}, and at most "
            f"{MOST_PRICE:,}"
        )
    return f"{kept.normalize():f}"


def _shares(line: _Line, catalogue: Path) -> dict[str, float]:
    """GPUs and vCPUs; an empty field or 0 says that it has none or that it is not known."""
    number, row = line
    found = {}
    for name, column in (("gpus", "AcceleratorCount"), ("vcpus", "vCPUs")):
        text = row.get(column) or "0"
        try:
            count = float(text)
        except ValueError:
            count = float("nan")
        if not 0 <= count < float("inf"):
            raise ConfigError(
                f"{catalogue}, line {number}: {column} of {row['InstanceType']} is '{text}'; "
                "expected a number, or nothing"
            )
        if count:
            found[name] = count
    if _accelerator(row) and "gpus" not in found:
        raise ConfigError(
            f"{catalogue}, line {number}: {row['InstanceType']} has {_accelerator(row)} and no "
            "AcceleratorCount; expected how many"
        )
    return found


def _accelerator(row: Mapping[str, str]) -> str:
    return row.get("AcceleratorName") or ""
