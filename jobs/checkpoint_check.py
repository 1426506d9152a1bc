"""The check of the newest checkpoint against the records that it stands for.

Other commands trust a checkpoint; ``verify`` reads the records themselves and only then compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster import layout
from cluster.checkpoint import SCHEMA, numbers, read_checkpoint
from cluster.job_log import generation
from cluster.settled import Settled, retried_shards
from cluster.shard_log import ShardState
from cluster.store import Store
from cluster.totals import Totals, sealed_shard
from conf.errors import CorruptOutput
from jobs.shard_check import Findings

Row = Mapping[str, Any]
_BATCH_ROWS = 4096


class CheckpointCheck:
    """Walks beside the shards: ``compare`` is called with each shard of the plan in order, then
    ``finish``. The checkpoint is as old as this object, so that a running job may go on."""

    def __init__(self, store: Store, findings: Findings) -> None:
        self._findings = findings
        self._generation = generation(store)
        settled = _newest(store, findings)
        self._checkpoint = settled.checkpoint
        self._rows = _rows(settled)
        self._row = next(self._rows, None)

    def compare(self, shard_id: int, state: ShardState | None) -> None:
        """Compare the shard's row, where there is one; None: its records cannot be read."""
        if self._row is None or self._row["shard_id"] != shard_id:
            return
        row, self._row = self._row, next(self._rows, None)
        if state is None or state.generation > self._generation:
            return
        if not state.sealed:
            self._findings.add(f"{self._key} has shard {shard_id}, which is not sealed")
            return
        expected = _of_state(state)
        for name, found in _of_row(row).items():
            what = f"'{name}' of shard {shard_id} in {self._key}"
            self._findings.expect(what, found=found, expected=expected[name])

    def finish(self, totals: Totals) -> None:
        """Look for rows of shards that do not exist and for lifetimes that nobody lived."""
        if self._row is not None:
            self._findings.add(
                f"{self._key} has shard {self._row['shard_id']}, which is not in the plan"
            )
        for stamp in self._checkpoint.stamps if self._checkpoint else ():
            use = totals.workers.get(stamp.worker)
            if use is None or use.stamp is None or use.stamp.lifetime_ns < stamp.lifetime_ns:
                self._findings.add(
                    f"{self._key} has worker {stamp.worker} live for {stamp.lifetime_ns} ns; no "
                    "commit and no stamp of it says so"
                )

    @property
    def _key(self) -> str:
        assert self._checkpoint is not None
        return layout.checkpoint(self._checkpoint.number)


def _newest(store: Store, findings: Findings) -> Settled:
    found = numbers(store)
    try:
        if found:
            checkpoint = read_checkpoint(store, found[-1])
            return Settled(checkpoint=checkpoint, retried=retried_shards(store))
    except CorruptOutput as error:
        findings.add(str(error))
    return Settled(checkpoint=None, retried={})


def _rows(settled: Settled) -> Iterator[Row]:
    for table in settled.tables():
        for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
            yield from batch.to_pylist()


def _of_row(row: Row) -> Row:
    shares = sorted((s["worker"], s["used_ns"], s["used_amount"]) for s in row["shares"])
    return {**row, "shares": shares}


def _of_state(state: ShardState) -> Row:
    seal = sealed_shard(state)
    shares = sorted((s.worker, s.used_ns, s.used_amount) for s in seal.shares)
    return {**{name: getattr(seal, name) for name in SCHEMA.names}, "shares": shares}
