"""The persisted records of a job and their JSON form.

Everything durable is one of these (or a Parquet file that one of these names). Records are written
once and never changed; each carries ``schema`` so that a later version can tell what it reads.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.price import Price
from cluster.traffic import Requests
from conf.errors import ConfigError, CorruptOutput
from conf.parser import parse_group
from conf.price_book import StoragePrice
from conf.schema import BudgetConfig, PricingConfig

SCHEMA = 1
_NEXT = "'imagemill verify OUTPUT' tells what else is damaged"
Ranges = tuple[tuple[int, int], ...]
"""Sorted, disjoint, half-open [start, end) ranges of row offsets inside a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A range of rows of one input file; the unit of leasing. Depends on the input alone.

    ``first_row`` counts inside ``file``; ``first_row_id`` is the place of that row in the whole
    input and, with the offset added, the row's identity.
    """

    shard_id: int
    file: str
    first_row: int
    rows: int
    first_row_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """An immutable object of the output, by key, size in bytes and content."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A commit that counts. ``quarantine`` false: its rejected rows were released for a retry."""

    key: str
    quarantine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The opening record of a lease epoch: the one point of decision about a shard.

    Whatever an older epoch commits after this record is on no list and does not count. A ``sealed``
    opening starts no work: its list is the shard's final content. ``attempt`` counts the openings
    that start work, this one included. ``nonce`` makes every writer's record unique, so that
    re-reading tells whose write landed.
    """

    shard_id: int
    epoch: int
    attempt: int
    worker: str
    nonce: str
    opened_at: str
    accepted: tuple[Accepted, ...]
    sealed: bool
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Evidence of a worker's lifetime up to ``seq``: cumulative nanoseconds since its start.

    ``lifetime_ns`` is what is billed, ``busy_ns`` of it was spent on images (whatever became of
    them; ``estimated_ns`` of that nobody measured), ``overhead_ns`` on loading, compiling and
    warming up, all at ``price``. ``requests`` are those to the output's store. Ticks and slots
    are those of ``operators.engine.EngineStats``.

    ``alive_ns`` is how long the worker lived where that is not what is billed: its images are made
    by servers, and their time is. None: it is.
    """

    worker: str
    seq: int
    run: int
    node: str
    gpus: str
    price: Price
    started_at: str
    lifetime_ns: int
    busy_ns: int
    overhead_ns: int
    requests: Requests
    ticks: int
    occupied: int
    offered: int
    other_shapes: int
    starved: int
    closed: bool
    alive_ns: int | None
    estimated_ns: int

    @property
    def lived_ns(self) -> int:
        """Nanoseconds from the worker's start to this stamp."""
        return self.lifetime_ns if self.alive_ns is None else self.alive_ns

    def newer_than(self, other: Stamp) -> bool:
        """Whether it says more of the same worker's life."""
        return (self.lifetime_ns, self.seq) > (other.lifetime_ns, other.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What became done: the only thing that makes rows "done".

    ``rows`` and ``quarantined`` are disjoint row offsets. The named Parquet objects hold one line
    an image (with object, size, sha256), a rejected row, a cost line. ``amount_nano`` is the sum of
    the ledger lines in 1e-9 currency units, ``device_ns`` the sum of the images' device time.
    """

    shard_id: int
    epoch: int
    seq: int
    attempt: int
    rows: Ranges
    quarantined: Ranges
    images: int
    image_bytes: int
    device_ns: int
    amount_nano: int
    metadata: ObjectRef | None
    quarantine: ObjectRef | None
    ledger: ObjectRef | None
    objects: tuple[ObjectRef, ...]
    stamp: Stamp
    written_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One driver that worked on this job; numbered from 1. ``prices`` is the digest of the price
    book that its workers were priced by, which ``pricing`` asked for.
    ``budget`` is the job's from this run on."""

    run: int
    generation: int
    started_at: str
    workers: int
    version: str
    pricing: PricingConfig
    prices: str
    budget: BudgetConfig
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRecord:
    """A request to release quarantined rows; numbered from 1. Names the shards that have any."""

    generation: int
    requested_at: str
    shards: tuple[int, ...]
    nonce: str


def to_json(record: Any) -> bytes:
    """The record as canonical JSON."""
    plain = {"schema": SCHEMA, "kind": type(record).__name__, **dataclasses.asdict(record)}
    return (json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _checked(data: bytes, kind: str, key: str) -> dict[str, Any]:
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise CorruptOutput(f"{key} is damaged: it is not JSON ({error}); {_NEXT}") from error
    if not isinstance(plain, dict) or plain.get("kind") != kind or plain.get("schema") != SCHEMA:
        raise CorruptOutput(
            f"{key} is damaged: it holds no record of kind {kind}, schema {SCHEMA}; {_NEXT}"
        )
    del plain["kind"], plain["schema"]
    return plain


def _ref(plain: Mapping[str, Any] | None) -> ObjectRef | None:
    return None if plain is None else ObjectRef(**plain)


def _stamp(plain: Mapping[str, Any]) -> Stamp:
    price = dict(plain["price"])
    price["storage"] = None if price["storage"] is None else StoragePrice(**price["storage"])
    return Stamp(
        **{**plain, "price": Price(**price), "requests": Requests(**plain["requests"])},
    )


def _ranges(plain: Iterable[Iterable[int]]) -> Ranges:
    return tuple((start, end) for start, end in plain)


@contextmanager
def _fields_of(kind: str, key: str) -> Iterator[None]:
    """A field that is absent, unknown or of another shape makes the record corrupt."""
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError, ConfigError) as error:
        raise CorruptOutput(
            f"{key} is damaged: a record of kind {kind} with wrong fields ({error}); {_NEXT}"
        ) from error


def opening_from_json(data: bytes, key: str) -> Opening:
    """Read an opening record; ``key`` names it in errors."""
    plain = _checked(data, "Opening", key)
    with _fields_of("Opening", key):
        plain["accepted"] = tuple(Accepted(**item) for item in plain["accepted"])
        return Opening(**plain)


def commit_from_json(data: bytes, key: str) -> Commit:
    """Read a commit record; ``key`` names it in errors."""
    plain = _checked(data, "Commit", key)
    with _fields_of("Commit", key):
        plain["rows"] = _ranges(plain["rows"])
        plain["quarantined"] = _ranges(plain["quarantined"])
        for name in ("metadata", "quarantine", "ledger"):
            plain[name] = _ref(plain[name])
        plain["objects"] = tuple(ObjectRef(**item) for item in plain["objects"])
        plain["stamp"] = _stamp(plain["stamp"])
        return Commit(**plain)


def stamp_from_json(data: bytes, key: str) -> Stamp:
    """Read a worker's stamp; ``key`` names it in errors."""
    plain = _checked(data, "Stamp", key)
    with _fields_of("Stamp", key):
        return _stamp(plain)


def run_from_json(data: bytes, key: str) -> RunRecord:
    """Read a run record; ``key`` names it in errors."""
    plain = _checked(data, "RunRecord", key)
    with _fields_of("RunRecord", key):
        pricing = parse_group(PricingConfig, plain["pricing"], "pricing")
        budget = parse_group(BudgetConfig, plain["budget"], "budget")
        return RunRecord(**{**plain, "pricing": pricing, "budget": budget})


def retry_from_json(data: bytes, key: str) -> RetryRecord:
    """Read a retry record; ``key`` names it in errors."""
    plain = _checked(data, "RetryRecord", key)
    with _fields_of("RetryRecord", key):
        plain["shards"] = tuple(plain["shards"])
        return RetryRecord(**plain)


def ranges_of(offsets: Iterable[int]) -> Ranges:
    """The shortest ranges that hold exactly these offsets."""
    found: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return tuple(found)


def offsets_of(ranges: Ranges) -> set[int]:
    """The offsets in ``ranges``."""
    return {offset for start, end in ranges for offset in range(start, end)}


def count_of(ranges: Ranges) -> int:
    """How many offsets ``ranges`` hold."""
    return sum(end - start for start, end in ranges)
