"""What an output holds: a streaming fold over its checkpoint, the records of the shards that are
not in it, and all workers' stamps.

Reads only the store; memory grows with the workers, not with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.compute as pc

from cluster import layout
from cluster.money import LedgerLine, bill, close_worker, estimated_ns, request_lines, storage_line
from cluster.plan_file import PlanReader
from cluster.records import Commit, Stamp, count_of, stamp_from_json
from cluster.sealed_shard import SealedShard, WorkerShare
from cluster.settled import Settled
from cluster.shard_log import ShardState, read_shard_state
from cluster.store import Store

_READ_AHEAD = 64
_THREADS = 16


@dataclass(slots=True)
class WorkerUse:
    """What a worker's counted images used, and the last evidence of its lifetime."""

    used_ns: int = 0
    used_amount: int = 0
    stamp: Stamp | None = None

    def see(self, stamp: Stamp) -> None:
        """Keep the newest stamp."""
        if self.stamp is None or stamp.newer_than(self.stamp):
            self.stamp = stamp


@dataclass(slots=True)
class Totals:
    """Sums over what counts. Amounts in 1e-9 currency units, times in nanoseconds."""

    rows: int = 0
    shards: int = 0
    sealed: int = 0
    committed: int = 0
    quarantined: int = 0
    images: int = 0
    image_bytes: int = 0
    attempts: int = 0
    workers: dict[str, WorkerUse] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Rows that are neither committed nor quarantined."""
        return self.rows - self.committed - self.quarantined

    def add_commit(self, commit: Commit, *, quarantine: bool) -> None:
        """Count one commit."""
        self.committed += count_of(commit.rows)
        self.quarantined += count_of(commit.quarantined) if quarantine else 0
        self.images += commit.images
        self.image_bytes += commit.image_bytes
        use = self.workers.setdefault(commit.stamp.worker, WorkerUse())
        use.used_ns += commit.device_ns
        use.used_amount += commit.amount_nano
        use.see(commit.stamp)

    def add_settled(self, table: pa.Table) -> None:
        """Count rows of a checkpoint; their workers' stamps are not in them."""
        self.sealed += table.num_rows
        self.attempts = max(self.attempts, pc.max(table["attempt"]).as_py() or 0)
        for name in ("committed", "quarantined", "images", "image_bytes"):
            total = pc.sum(table[name]).as_py() or 0
            setattr(self, name, getattr(self, name) + total)
        shares = pa.Table.from_struct_array(pc.list_flatten(table["shares"]))
        sums = shares.group_by("worker").aggregate([("used_ns", "sum"), ("used_amount", "sum")])
        for row in sums.to_pylist():
            use = self.workers.setdefault(row["worker"], WorkerUse())
            use.used_ns += row["used_ns_sum"]
            use.used_amount += row["used_amount_sum"]


def sealed_shard(state: ShardState) -> SealedShard:
    """What a sealed shard's counted commits sum up to."""
    totals = Totals()
    for commit, quarantine in counted(state):
        totals.add_commit(commit, quarantine=quarantine)
    return SealedShard(
        shard_id=state.shard_id,
        generation=state.generation,
        epoch=state.epoch,
        attempt=state.attempt,
        committed=totals.committed,
        quarantined=totals.quarantined,
        images=totals.images,
        image_bytes=totals.image_bytes,
        shares=tuple(
            WorkerShare(used_ns=use.used_ns, used_amount=use.used_amount, stamp=use.stamp)
            for use in totals.workers.values()
            if use.stamp is not None
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The closed ledger: nanoseconds and amounts by kind, which add up to the bill.

    Of the ``workers``, those in ``unpriced`` (why each has no price) are in no amount. Storage,
    requests and egress are kinds where there are such lines; ``unpriced_lines`` of them have no
    amount either. ``estimated_ns`` of the wasted time nobody measured.
    """

    ns: dict[str, int]
    amount: dict[str, int]
    total_ns: int
    total_amount: int
    workers: int
    unpriced: tuple[str, ...]
    unpriced_lines: int
    estimated_ns: int = 0


def states(
    store: Store, plan: PlanReader, among: Iterable[int] | None = None
) -> Iterator[ShardState]:
    """The states of the shards that were ever opened, in plan order, read ahead in threads.

    Args:
        among: only these ids, ascending; None means all of the plan.
    """
    opened = _opened(store, range(plan.shards) if among is None else among)
    with ThreadPoolExecutor(_THREADS, "fold") as pool:
        while chunk := list(islice(opened, _READ_AHEAD)):
            yield from pool.map(lambda shard_id: read_shard_state(store, shard_id), chunk)


def _opened(store: Store, shard_ids: Iterable[int]) -> Iterator[int]:
    """Those that have a folder of opening records: one listing of groups, and one of each group
    that holds any of the ids."""
    groups = set(store.folders(layout.LEASES))
    wanted = (
        (name, list(ids))
        for group, ids in groupby(shard_ids, layout.group_of)
        if (name := layout.group_name(group)) in groups
    )

    def listed(group: tuple[str, list[int]]) -> list[int]:
        name, ids = group
        found = set(store.folders(f"{layout.LEASES}{name}/"))
        return [shard_id for shard_id in ids if layout.shard_name(shard_id) in found]

    with ThreadPoolExecutor(_THREADS, "groups") as pool:
        while chunk := list(islice(wanted, _THREADS)):
            for ids in pool.map(listed, chunk):
                yield from ids


def counted(state: ShardState) -> Iterator[tuple[Commit, bool]]:
    """The commits that count, and whether their quarantined rows do."""
    for item in state.commits:
        yield item.commit, item.quarantine


def fold(store: Store, plan: PlanReader) -> Totals:
    """Sum up an output. Records are read only of shards that its checkpoint does not settle."""
    totals = Totals(rows=plan.rows, shards=plan.shards)
    settled = Settled.of(store)
    for table in settled.tables():
        totals.add_settled(table)
    for stamp in settled.stamps:
        totals.workers.setdefault(stamp.worker, WorkerUse()).see(stamp)
    for state in states(store, plan, settled.missing(range(plan.shards))):
        totals.sealed += state.sealed
        totals.attempts = max(totals.attempts, state.attempt)
        for commit, quarantine in counted(state):
            totals.add_commit(commit, quarantine=quarantine)
    add_stamps(store, totals)
    return totals


def add_stamps(store: Store, totals: Totals) -> None:
    """Let the workers' own stamps extend what their commits told of their lifetimes."""
    keys = [entry.key for entry in store.listing(layout.WORKERS)]
    with ThreadPoolExecutor(_THREADS, "stamps") as pool:
        for key, data in zip(keys, pool.map(store.get, keys), strict=True):
            if data is not None:
                stamp = stamp_from_json(data, key)
                totals.workers.setdefault(stamp.worker, WorkerUse()).see(stamp)


def all_lines(totals: Totals, storage_months: float) -> list[LedgerLine]:
    """Every line but those of images."""
    return [*worker_lines(totals), *store_lines(totals, storage_months)]


def store_lines(totals: Totals, storage_months: float) -> list[LedgerLine]:
    """What the workers asked of the store, and what it costs to keep the images for so long."""
    stamps = [use.stamp for _, use in sorted(totals.workers.items()) if use.stamp is not None]
    lines = [line for stamp in stamps for line in request_lines(stamp)]
    if storage_months and stamps:
        last = max(stamps, key=lambda stamp: (stamp.started_at, stamp.worker))
        lines.append(storage_line(totals.image_bytes, Decimal(str(storage_months)), last))
    return lines


def worker_lines(totals: Totals) -> list[LedgerLine]:
    """The wasted, overhead and idle lines of every worker."""
    return [
        line
        for name in sorted(totals.workers)
        if (use := totals.workers[name]).stamp is not None
        for line in close_worker(use.stamp, used_ns=use.used_ns, used_amount=use.used_amount)
    ]


def close(totals: Totals, storage_months: float) -> Bill:
    """The bill, by kind. Each worker's lines sum to its lifetime's price by construction."""
    ns = {"used": 0, "wasted": 0, "overhead": 0, "idle": 0}
    amount = dict(ns)
    for use in totals.workers.values():
        ns["used"] += use.used_ns
        amount["used"] += use.used_amount
    for line in worker_lines(totals):
        ns[line.kind] += line.device_ns or 0
        amount[line.kind] += line.amount_nano or 0
    stamps = [use.stamp for use in totals.workers.values() if use.stamp]
    others = store_lines(totals, storage_months)
    for line in others:
        amount[line.kind] = amount.get(line.kind, 0) + (line.amount_nano or 0)
    return Bill(
        ns=ns,
        amount=amount,
        total_ns=sum(stamp.lifetime_ns for stamp in stamps),
        total_amount=sum(bill(stamp.price, stamp.lifetime_ns) or 0 for stamp in stamps)
        + sum(line.amount_nano or 0 for line in others),
        workers=len(stamps),
        unpriced=tuple(s.price.unpriced for s in stamps if s.price.nano_per_hour is None),
        unpriced_lines=sum(line.amount_nano is None for line in others),
        estimated_ns=sum(
            estimated_ns(use.stamp, used_ns=use.used_ns)
            for use in totals.workers.values()
            if use.stamp
        ),
    )
