"""``imagemill prices``: show a price book, or make one of a SkyPilot catalogue."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from cluster.money import as_decimal
from conf.errors import ConfigError
from conf.price_book import PriceBook, parse_book, read_book

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


def book_lines(name: str) -> list[str]:
    """A price book for the terminal.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    book = read_book(name)
    since = book.effective_from or "ever"
    until = f" up to {book.effective_until}" if book.effective_until else ""
    return [
        f"{name}: prices {book.version} in {book.currency}, since {since}{until}; digest "
        f"{book.digest}",
        *_instances(book),
        *(
            f"{entry.url}: {_amount(entry.nano_per_gb_month)} a GB-month, "
            f"{_amount(entry.nano_per_1000_writes)} for 1,000 writes, "
            f"{_amount(entry.nano_per_1000_reads)} for 1,000 reads, "
            f"{_amount(entry.nano_per_gb_egress)} a GB read"
            for entry in book.storage
        ),
    ]


def _instances(book: PriceBook) -> Iterator[str]:
    for entry in book.instances:
        names = (entry.provider, entry.zone or entry.region, entry.instance_type)
        where = " ".join(name for name in names if name) or "any machine"
        option = f" {entry.purchase_option}" if entry.purchase_option else ""
        shares = [
            f"{count:g} {what}"
            for count, what in ((entry.gpus, "GPU"), (entry.vcpus, "vCPU"))
            if count
        ]
        if entry.shared:
            shares.append("shared by its workers")
        shared = f" ({', '.join(shares)})" if shares else ""
        yield f"{where}{option}: {_amount(entry.nano_per_hour)} an hour{shared}"


def _amount(nano: int) -> str:
    return f"{as_decimal(nano).normalize():f}"


def import_catalogue(catalogue: Path, target: Path, asked: Import) -> PriceBook:
    """Write a SkyPilot catalogue as a price book; prices finer than 1e-9 are rounded.

    Raises:
        ConfigError: the catalogue cannot be read, lacks a column, has nothing that was asked for,
            or the book cannot be written.
    """
    try:
        with catalogue.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            _check_columns(rows.fieldnames or (), catalogue)
            entries = _entries(_wanted(rows, asked), asked, catalogue)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {catalogue}: {error}") from error
    if not entries:
        raise ConfigError(
            f"{catalogue} has no price of what was asked for: regions "
            f"{', '.join(asked.regions) or 'any'}, accelerators "
            f"{', '.join(asked.accelerators) or 'any'}"
        )
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
    return book


def _check_columns(names: Iterable[str], catalogue: Path) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ConfigError(
            f"{catalogue} has no column {', '.join(missing)}; expected a SkyPilot catalogue: "
            "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Region,SpotPrice,Price,"
            "AvailabilityZone,GpuInfo"
        )


def _wanted(rows: Iterable[Mapping[str, str]], asked: Import) -> Iterator[Mapping[str, str]]:
    for row in rows:
        here = not asked.regions or row["Region"] in asked.regions
        such = not asked.accelerators or (row.get("AcceleratorName") or "") in asked.accelerators
        if here and such and row["InstanceType"]:
            yield row


def _entries(
    rows: Iterable[Mapping[str, str]], asked: Import, catalogue: Path
) -> list[dict[str, Any]]:
    """An entry a machine, region and option; one a zone where its zones differ in price."""
    found: dict[tuple[str, str, str], dict[str, tuple[str, Mapping[str, str]]]] = defaultdict(dict)
    for row in rows:
        for option, column in _OPTIONS.items():
            if row[column]:
                price = _price(row, column, catalogue)
                key = (row["InstanceType"], row["Region"], option)
                found[key][row.get("AvailabilityZone") or ""] = (price, row)
    entries = []
    for (kind, region, option), zones in sorted(found.items()):
        prices = {price for price, _ in zones.values()}
        apart = len(prices) > 1
        for zone, (price, row) in sorted(zones.items() if apart else list(zones.items())[:1]):
            place = {"provider": asked.provider, "region": region}
            place |= {"zone": zone} if apart else {}
            entries.append(
                place
                | {"instance_type": kind, "purchase_option": option, "price_per_hour": price}
                | _shares(row)
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
