"""What is left of an assignment when a run starts: its shards without those that are settled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cluster.coordinator import Counts
from cluster.settled import Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """``pending`` yields the other ``total - sealed`` ids lazily; ``counts`` is what the sealed
    shards hold."""

    total: int
    sealed: int
    counts: Counts
    pending: Iterator[int]


def backlog(settled: Settled, *, total: int, shards: Sequence[int] | None) -> Backlog:
    """The backlog of all ``total`` shards of a plan, or of some ``shards`` in ascending order."""
    ids = range(total) if shards is None else shards
    sealed = 0
    counts = Counts()
    for table in settled.tables(["committed", "quarantined", "images", "shares"]):
        if shards is not None:
            wanted = pc.is_in(table["shard_id"], value_set=pa.array(shards, pa.int64()))
            table = table.filter(wanted)
        sealed += table.num_rows
        counts += Counts(
            rows=_sum(table["committed"]),
            quarantined=_sum(table["quarantined"]),
            images=_sum(table["images"]),
            amount_nano=_sum(pc.struct_field(pc.list_flatten(table["shares"]), "used_amount")),
        )
    return Backlog(total=len(ids), sealed=sealed, counts=counts, pending=settled.missing(ids))


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0
