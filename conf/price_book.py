"""A price book: what machines, storage and requests cost, by a list with a version and a date.

Pure but for reading the YAML file. Amounts become integers of 1e-9 currency units here; which entry
holds for a worker is ``cluster.pricing``'s to say.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from conf.amounts import MOST_PRICE, NANO, decimal, nano
from conf.currencies import check_currency
from conf.errors import ConfigError
from conf.schema import PricingConfig
from conf.yaml_file import parse_yaml

OPTIONS = ("on-demand", "spot", "reserved", "owned")
PLACE = ("provider", "region", "zone", "instance_type", "purchase_option")
"""What names a machine in a book. An entry that leaves one out holds whatever it is."""
_HOURS_PER_YEAR = 8760
_MOST_OWNED = 10**12
_LEAST_YEARS = Decimal("0.01")
_LEAST_SHARE, _MOST_SHARE = 1e-6, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePrice:
    """One machine for an hour: ``nano_per_hour`` in 1e-9 currency units.

    With ``gpus`` a worker that has some pays for its share of them, and with ``vcpus`` one without
    for its share of these; ``shared``: of those that its node has, which is looked up there. With
    none of the three each worker pays for the whole machine.
    """

    provider: str | None
    region: str | None
    zone: str | None
    instance_type: str | None
    purchase_option: str | None
    nano_per_hour: int
    gpus: float | None = None
    vcpus: float | None = None
    shared: bool = False
    speed: float | None = None
    speed_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePrice:
    """What a store costs whose URL begins with ``url``, in 1e-9 currency units."""

    url: str
    nano_per_gb_month: int
    nano_per_1000_writes: int
    nano_per_1000_reads: int
    nano_per_gb_egress: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """All prices that hold from ``effective_from`` up to and without ``effective_until``."""

    version: str
    currency: str
    effective_from: date | None
    effective_until: date | None
    instances: tuple[InstancePrice, ...]
    storage: tuple[StoragePrice, ...]

    @property
    def digest(self) -> str:
        """Tells two books of one version apart."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]

    def to_json(self) -> bytes:
        """The book as canonical JSON."""
        plain = dataclasses.asdict(self)
        for entry in plain["instances"]:
            if entry["speed"] is None:  # a book that states no speeds keeps its digest
                del entry["speed"], entry["speed_of"]
            if not entry["shared"]:
                del entry["shared"]
        return (json.dumps(plain, sort_keys=True, default=str) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        plain = json.loads(data)
        for name in ("effective_from", "effective_until"):
            plain[name] = None if plain[name] is None else date.fromisoformat(plain[name])
        plain["instances"] = tuple(InstancePrice(**entry) for entry in plain["instances"])
        plain["storage"] = tuple(StoragePrice(**entry) for entry in plain["storage"])
        return cls(**plain)


def book_names() -> list[str]:
    """The books that are shipped."""
    folder = files("conf") / "pricing"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir())


def book_of(pricing: PricingConfig) -> PriceBook:
    """The configured book; with ``pricing.price_per_hour`` every worker costs that instead.

    Raises:
        ConfigError: there is no such book, or something in it is wrong; which entry and key.
    """
    book = read_book(pricing.book)
    if pricing.currency is not None and book.currency != pricing.currency:
        raise ConfigError(
            f"price book {pricing.book} is in {book.currency}; this job is in {pricing.currency} "
            "(pricing.currency); choose a book in that currency"
        )
    return book if pricing.price_per_hour is None else at_given_price(book, pricing.price_per_hour)


def at_given_price(book: PriceBook, price_per_hour: str) -> PriceBook:
    """The book with ``pricing.price_per_hour`` for every worker, on whatever machine.

    Raises:
        ConfigError: that is no price.
    """
    amount = nano(price_per_hour, "pricing.price_per_hour")
    anywhere: dict[str, Any] = dict.fromkeys(PLACE)
    worker = InstancePrice(**anywhere, nano_per_hour=amount)
    return dataclasses.replace(
        book, version="given", effective_from=None, effective_until=None, instances=(worker,)
    )


def read_book(name: str) -> PriceBook:
    """A shipped book by name, or the YAML file at a path.

    Raises:
        ConfigError: what is wrong, and where.
    """
    path = Path(name).expanduser()
    shipped = files("conf") / "pricing" / f"{name}.yaml"
    try:
        if path.suffix in {".yaml", ".yml"}:
            text = path.read_text()
        elif name in book_names():
            text = shipped.read_text()
        else:
            raise ConfigError(
                f"pricing.book={name} does not exist; expected one of {', '.join(book_names())}, "
                "or the path of a YAML file: pricing.book=/path/to/prices.yaml"
            )
    except OSError as error:
        raise ConfigError(f"cannot read price book {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"price book {name} is no YAML: {error}") from error
    where = f"price book {name}"
    return parse_book(parse_yaml(text, where), where)


def parse_book(plain: Any, where: str) -> PriceBook:
    """Check a book's plain values; ``where`` names it in errors.

    Raises:
        ConfigError: what is wrong, and where.
    """
    known = ("version", "currency", "effective_from", "effective_until", "instances", "storage")
    _check_keys(plain, known, where)
    check_currency(plain.get("currency"), f"{where}: currency")
    since, until = (_date(plain, f"effective_{end}", where) for end in ("from", "until"))
    if since is not None and until is not None and since >= until:
        raise ConfigError(
            f"{where}: effective_from is {since} and effective_until {until}, so that it never "
            "holds; expected a later effective_until, the first day on which it no longer holds"
        )
    book = PriceBook(
        version=_text(plain.get("version"), f"{where}: version"),
        currency=plain["currency"],
        effective_from=since,
        effective_until=until,
        instances=tuple(
            _instance(entry, f"{where}: instances entry {number}")
            for number, entry in enumerate(_entries(plain, "instances", where), start=1)
        ),
        storage=tuple(
            _storage(entry, f"{where}: storage entry {number}")
            for number, entry in enumerate(_entries(plain, "storage", where), start=1)
        ),
    )
    places = [[(name, getattr(entry, name)) for name in PLACE] for entry in book.instances]
    _check_once(places, f"{where}: instances")
    _check_once([[("url", entry.url)] for entry in book.storage], f"{where}: storage")
    return book


def _instance(entry: Any, where: str) -> InstancePrice:
    known = (*PLACE, "price_per_hour", "owned", "gpus", "vcpus", "shared", "speed", "speed_of")
    _check_keys(entry, known, where)
    option = entry.get("purchase_option")
    if option is not None and option not in OPTIONS:
        raise ConfigError(
            f"{where}: purchase_option is {option!r}; expected one of {', '.join(OPTIONS)}"
        )
    if ("price_per_hour" in entry) == ("owned" in entry):
        raise ConfigError(f"{where}: expected either price_per_hour or owned")
    shared = entry.get("shared", False)
    if not isinstance(shared, bool):
        raise ConfigError(f"{where}: shared is {shared!r}; expected true or false")
    if shared and ("gpus" in entry or "vcpus" in entry):
        raise ConfigError(
            f"{where}: expected either shared: true, which looks up what the node has, or gpus and "
            "vcpus"
        )
    if ("speed" in entry) != ("speed_of" in entry):
        raise ConfigError(
            f"{where}: expected speed and speed_of together: how many times as fast a worker on it "
            "is as one on the instance type speed_of"
        )
    place: dict[str, Any] = {
        name: None if entry.get(name) is None else _text(entry[name], f"{where}: {name}")
        for name in PLACE
    }
    return InstancePrice(
        **place,
        nano_per_hour=nano(entry["price_per_hour"], f"{where}: price_per_hour")
        if "price_per_hour" in entry
        else _owned(entry["owned"], f"{where}: owned"),
        gpus=_share(entry, "gpus", where),
        vcpus=_share(entry, "vcpus", where),
        shared=shared,
        speed=_share(entry, "speed", where),
        speed_of=_text(entry["speed_of"], f"{where}: speed_of") if "speed_of" in entry else None,
    )


def _owned(plain: Any, where: str) -> int:
    """Hardware of one's own: its price over its years, and the power that it draws."""
    names = ("hardware", "years", "watts", "electricity_per_kwh")
    _check_keys(plain, names, where)
    price, years, watts, per_kwh = (
        decimal(plain.get(name), f"{where}.{name}", _MOST_OWNED) for name in names
    )
    if years < _LEAST_YEARS:
        raise ConfigError(
            f"{where}.years is {plain['years']}; expected how many years the hardware is used, at "
            f"least {_LEAST_YEARS}"
        )
    hourly = price / (years * _HOURS_PER_YEAR) + watts / 1000 * per_kwh
    decimal(round(hourly, 2), f"{where}: the price of an hour", MOST_PRICE)
    return int((hourly * NANO).to_integral_value(ROUND_HALF_UP))


def _storage(entry: Any, where: str) -> StoragePrice:
    names = ("per_gb_month", "per_1000_writes", "per_1000_reads", "per_gb_egress")
    _check_keys(entry, ("url", *names), where)
    if not isinstance(entry.get("url"), str):
        raise ConfigError(f"{where}: url is {entry.get('url')!r}; expected text, such as s3://")
    given = {"per_gb_egress": 0, **entry}
    amounts = {f"nano_{name}": nano(given.get(name), f"{where}: {name}") for name in names}
    return StoragePrice(url=entry["url"], **amounts)


def _share(entry: Mapping[str, Any], name: str, where: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and _LEAST_SHARE <= value <= _MOST_SHARE:
        return float(value)
    raise ConfigError(
        f"{where}: {name} is {value!r}; expected a number above 0 (0.000001 to 1,000,000), or "
        "nothing"
    )


def _text(value: Any, where: str) -> str:
    """Text, or a number as such: YAML takes 2026 for one."""
    wrong = not isinstance(value, str | int | float) or isinstance(value, bool)
    if wrong or not str(value).strip():
        raise ConfigError(
            f"{where} is {value!r}; expected text; quotes around what YAML reads as something else "
            "make it text"
        )
    return str(value)


def _check_once(found: Sequence[Sequence[tuple[str, str | None]]], where: str) -> None:
    """Refuse two entries that hold for the same: which of them did is not known."""
    first: dict[Any, int] = {}
    for number, names in enumerate(found, start=1):
        before = first.setdefault(tuple(names), number)
        if before != number:
            same = ", ".join(f"{name} {value}" for name, value in names if value is not None)
            raise ConfigError(
                f"{where} entries {before} and {number} are both for {same or 'any machine'}; "
                "expected one; remove one, or name what tells them apart"
            )


def _date(plain: Mapping[str, Any], name: str, where: str) -> date | None:
    value = plain.get(name)
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    elif value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    raise ConfigError(f"{where}: {name} is {value!r}; expected a date, such as 2026-01-31")


def _entries(plain: Mapping[str, Any], name: str, where: str) -> Sequence[Any]:
    found = plain.get(name) or []
    if not isinstance(found, list):
        raise ConfigError(f"{where}: {name} is {found!r}; expected a list of entries")
    return found


def _check_keys(plain: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{where} is {plain!r}; expected the keys {', '.join(known)}")
    for name in plain:
        if name not in known:
            raise ConfigError(f"{where} has the key {name!r}; expected {', '.join(known)}")
