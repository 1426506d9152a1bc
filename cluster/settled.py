"""What needs no reading any more: the rows of the newest checkpoint that no retry has released.

A retry's record names the shards whose quarantined rows it releases; from then on a row of an older
generation does not tell what they hold, and their own records must be asked.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cluster.checkpoint import Checkpoint, newest_checkpoint
from cluster.job_log import generation, read_retry
from cluster.records import Stamp
from cluster.store import Store
from conf.errors import StoreRefused, StoreUnavailable

log = logging.getLogger("imagemill")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A checkpoint, or none, with the newest generation that released each retried shard.

    Memory: a row group, and the shards that retries name.
    """

    checkpoint: Checkpoint | None
    retried: dict[int, int]

    @classmethod
    def of(cls, store: Store) -> Settled:
        """What is settled in an output; nothing, and a warning, where the store does not answer or
        refuses to: every shard's own records are asked then."""
        try:
            checkpoint = newest_checkpoint(store)
            retried = retried_shards(store) if checkpoint else {}
        except (StoreUnavailable, StoreRefused) as error:
            log.warning(
                "going on without a checkpoint: %s", error, extra={"event": "checkpoint_unread"}
            )
            return cls(checkpoint=None, retried={})
        return cls(checkpoint=checkpoint, retried=retried)

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """The newest stamp of each worker that had a part in a shard of the checkpoint."""
        return self.checkpoint.stamps if self.checkpoint else ()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows that hold, by shard, a row group at a time; ``columns`` beside the first two."""
        if self.checkpoint is None:
            return
        wanted = None if columns is None else ["shard_id", "generation", *columns]
        shards = pa.array(list(self.retried), pa.int64())
        generations = pa.array(list(self.retried.values()), pa.int32())
        for table in self.checkpoint.tables(wanted):
            found = pc.index_in(table["shard_id"], value_set=shards)
            released = pc.fill_null(pc.take(generations, found), 0)
            yield table.filter(pc.greater_equal(table["generation"], released))

    def missing(self, shard_ids: Iterable[int]) -> Iterator[int]:
        """Those of the ascending ids that are not settled, lazily."""
        settled = (i for table in self.tables([]) for i in table["shard_id"].to_pylist())
        done = next(settled, None)
        for shard_id in shard_ids:
            while done is not None and done < shard_id:
                done = next(settled, None)
            if shard_id != done:
                yield shard_id

    def maybe_quarantined(self, shard_ids: Iterable[int]) -> Iterator[int]:
        """Those of the ascending ids that hold quarantined rows or are not settled."""
        return self._also_missing(pc.field("quarantined") > 0, shard_ids)

    def maybe_littered(self, shard_ids: Iterable[int]) -> Iterator[int]:
        """Those of the ascending ids in which an attempt failed, or a row, or that are not settled:
        where objects may lie that no commit counts."""
        failed = (pc.field("attempt") > 1) | (pc.field("quarantined") > 0)
        return self._also_missing(failed, shard_ids)

    def _also_missing(self, condition: pc.Expression, shard_ids: Iterable[int]) -> Iterator[int]:
        chosen = (
            shard_id
            for table in self.tables(["attempt", "quarantined"])
            for shard_id in table.filter(condition)["shard_id"].to_pylist()
        )
        return heapq.merge(chosen, self.missing(shard_ids))


def retried_shards(store: Store) -> dict[int, int]:
    """Shard -> the newest generation whose retry released its quarantined rows."""
    return {
        shard_id: number
        for number in range(1, generation(store) + 1)
        for shard_id in read_retry(store, number).shards
    }
