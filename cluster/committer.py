"""The committer: turns finished rows of held shards into commits, and whole shards into seals."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.commit_writer import CommitWriter
from cluster.coordinator import CoordinatorLink
from cluster.held_shard import HeldShard
from cluster.lifetime import utc_now
from cluster.records import Stamp
from cluster.shard_log import ShardState
from cluster.shard_work import Batch
from cluster.totals import sealed_shard
from cluster.worker_state import WorkerState
from conf.errors import CommitUnknown, CoordinatorLost, LeaseLost
from conf.schema import JobConfig

_LONGEST_WAIT_S = 3600.0


class Committer:
    """One thread's work: ``run`` returns when the worker is leaving and nothing is left to commit.

    Due shards are served in the order of their last commit, so none waits for more than one commit
    of each other. When none is due but the engine waits for memory, the shard that holds most of it
    is served. A shard whose lease was lost is revoked and not touched again; a coordinator that
    is lost ends the worker, but not before what is finished is committed.

    Args:
        stamp: the evidence of the worker's lifetime at this moment.
    """

    def __init__(
        self,
        job: JobConfig,
        state: WorkerState,
        writer: CommitWriter,
        *,
        link: CoordinatorLink,
        worker: str,
        stamp: Callable[[], Stamp],
    ) -> None:
        self._job = job
        self._state = state
        self._writer = writer
        self._link = link
        self._worker = worker
        self._stamp = stamp

    def run(self) -> None:
        """Commit what is due until the worker leaves."""
        while (held := self._await_due()) is not None:
            self._serve(held)

    def _serve(self, held: HeldShard) -> None:
        with self._state.changed:
            batch, last = held.work.take(), held.work.all_done
            held.committed_at_s = time.monotonic()
            self._state.begin_commit(len(batch.images))
        try:
            sealed = self._commit(held, batch, last=last)
        except (LeaseLost, CommitUnknown):
            self._state.revoke_hold(held)
            return
        finally:
            self._state.end_commit(len(batch.images))
        if last:
            self._done(held, sealed)

    def _await_due(self) -> HeldShard | None:
        """The shard to serve next; None when leaving and none is left."""
        state = self._state
        with state.changed:
            while True:
                now_s = time.monotonic()
                waits = [
                    (wait_s, held)
                    for held in state.holds()
                    if (wait_s := self._due_in_s(held, now_s)) is not None
                ]
                due = [held for wait_s, held in waits if wait_s <= 0]
                if due:
                    return min(due, key=lambda held: held.committed_at_s)
                if state.crowded and any(held.work.ready_images for _, held in waits):
                    return max(waits, key=lambda wait: wait[1].work.ready_images)[1]
                if state.leaving:
                    return None
                soonest_s = min((wait_s for wait_s, _ in waits), default=_LONGEST_WAIT_S)
                state.changed.wait(min(soonest_s, _LONGEST_WAIT_S))

    def _due_in_s(self, held: HeldShard, now_s: float) -> float | None:
        """Seconds until the shard wants a commit, 0 or less when it does; None: none is due."""
        work = held.work
        if work.all_done:
            return 0.0
        if not work.anything_ready:
            return None
        if self._state.draining or work.ready_images >= self._job.commit_images:
            return 0.0
        return held.committed_at_s + self._job.commit_seconds - now_s

    def _commit(self, held: HeldShard, batch: Batch, *, last: bool) -> ShardState | None:
        """Commit the batch; with the ``last`` one seal the shard and return what it holds."""
        if batch.rows or batch.rejected:
            commit = self._writer.write(held.log, held.work, held.rows, batch, self._stamp())
            held.add(commit)
            self._state.commits += 1
        return held.log.seal(now=utc_now) if last and held.whole else None

    def _done(self, held: HeldShard, sealed: ShardState | None) -> None:
        """The shard is sealed, or of a suspect one the rows of the trial are done."""
        self._state.done(held)
        if self._state.coordinator_lost:
            return
        try:
            if sealed is not None:
                self._link.sealed(self._worker, sealed_shard(sealed))
            else:
                self._link.survived(self._worker, held.shard_id)
        except CoordinatorLost as error:
            self._state.fail(error)
        else:
            self._state.told()
