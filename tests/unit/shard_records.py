"""Commit records without objects, and seals without records, for tests of the protocol alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cluster.price import Price
from cluster.records import Commit, Stamp, ranges_of
from cluster.sealed_shard import SealedShard, WorkerShare
from cluster.shard_log import ShardLog, ShardState
from cluster.store import Store
from cluster.traffic import Requests

PRICE = Price(
    nano_per_hour=100_000_000,
    currency="USD",
    version="v1",
    digest="0123456789abcdef",
    provider="local",
    region=None,
    instance_type="box",
    purchase_option="owned",
)
STAMP = Stamp(
    worker="w",
    seq=0,
    run=1,
    node="here",
    gpus="",
    price=PRICE,
    started_at="2026-01-01T00:00:00+00:00",
    lifetime_ns=0,
    busy_ns=0,
    overhead_ns=0,
    requests=Requests(),
    ticks=0,
    occupied=0,
    offered=0,
    other_shapes=0,
    starved=0,
    closed=False,
    alive_ns=None,
    estimated_ns=0,
)


def now() -> str:
    return "2026-01-01T00:00:00+00:00"


def commit_of(log: ShardLog, rows: Iterable[int], quarantined: Iterable[int] = ()) -> Commit:
    """The commit of these rows that ``log`` would write next."""
    return Commit(
        shard_id=log.shard_id,
        epoch=log.epoch,
        seq=log.next_seq,
        attempt=log.attempt,
        rows=ranges_of(rows),
        quarantined=ranges_of(quarantined),
        images=0,
        image_bytes=0,
        device_ns=0,
        amount_nano=0,
        metadata=None,
        quarantine=None,
        ledger=None,
        objects=(),
        stamp=STAMP,
        written_at=now(),
    )


def try_open(
    store: Store, shard_id: int = 0, *, worker: str = "w", generation: int = 0
) -> ShardLog | ShardState:
    return ShardLog.open(store, shard_id, worker=worker, generation=generation, now=now)


def opened(store: Store, shard_id: int = 0, *, worker: str = "w", generation: int = 0) -> ShardLog:
    log = try_open(store, shard_id, worker=worker, generation=generation)
    assert isinstance(log, ShardLog), f"shard {shard_id} is sealed"
    return log


def seal_of(
    shard_id: int,
    *,
    generation: int = 0,
    epoch: int = 2,
    quarantined: int = 0,
    workers: Iterable[str] = ("w",),
    lifetime_ns: int = 5,
) -> SealedShard:
    """A sealed shard whose numbers differ from its neighbours'."""
    return SealedShard(
        shard_id=shard_id,
        generation=generation,
        epoch=epoch,
        attempt=epoch - 1,
        committed=10 + shard_id,
        quarantined=quarantined,
        images=20 + shard_id,
        image_bytes=1000 + epoch,
        shares=tuple(
            WorkerShare(
                used_ns=100 + shard_id,
                used_amount=7 + shard_id,
                stamp=replace(STAMP, worker=worker, lifetime_ns=lifetime_ns),
            )
            for worker in workers
        ),
    )
