"""The feeder: leases shards, opens and reads them, and keeps the engine's queue filled."""

from __future__ import annotations

from typing import Protocol

from cluster.coordinator import CoordinatorLink
from cluster.held_shard import HeldShard, counts_of, open_shard
from cluster.job_log import run_opened
from cluster.leases import Dismiss, Grant, Wait
from cluster.records import Shard
from cluster.shard_log import ShardState
from cluster.store import Store
from cluster.suspicion import Suspicion
from cluster.totals import sealed_shard
from cluster.worker_state import WorkerState
from conf.errors import LeaseLost, RowRejected, TakenOver
from conf.schema import RunConfig
from operators.row_defaults import row_defaults

_ASK_AGAIN_S = 0.2
"""Other workers' seals and returns can only be learnt by asking, less and less often."""
_LONGEST_PAUSE_S = 2.0


class Shards(Protocol):
    """Where shards' descriptions come from."""

    def shard(self, shard_id: int) -> Shard: ...


class Feeder:
    """One thread's work: ``run`` returns when there is nothing left to lease or the worker drains.

    A lease that it was granted is in the state before anything can go wrong with its shard, so that
    whoever ends the worker gives it back.
    """

    def __init__(
        self,
        config: RunConfig,
        state: WorkerState,
        *,
        store: Store,
        shards: Shards,
        link: CoordinatorLink,
        worker: str,
        run: int,
        generation: int,
    ) -> None:
        self._config = config
        self._state = state
        self._store = store
        self._shards = shards
        self._link = link
        self._worker = worker
        self._run = run
        self._generation = generation
        self._defaults = row_defaults(config)

    def run(self) -> None:
        """Lease and read while the engine has room."""
        pause_s = _ASK_AGAIN_S
        while self._state.await_room():
            words = self._state.words
            answer = self._link.acquire(self._worker)
            self._state.answered(nothing_free=isinstance(answer, Wait))
            match answer:
                case Dismiss():
                    self._state.dismiss()
                    return
                case Wait():
                    self._state.await_word(words, timeout_s=pause_s)
                    pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                    continue
                case Grant() if self._state.lease(answer.shard_id):
                    held = self._open(answer)
                    if held is not None:
                        self._read(held, answer.suspicion)
                case Grant():
                    self._link.returned(self._worker, answer.shard_id, False)
            pause_s = _ASK_AGAIN_S

    def _open(self, grant: Grant) -> HeldShard | None:
        """Open the leased shard; None when it is sealed or another's, and the lease is over."""
        shard_id = grant.shard_id
        shard = self._shards.shard(shard_id)
        self._check_last_run()
        try:
            opened = open_shard(
                self._store,
                shard,
                worker=self._worker,
                generation=self._generation,
                suspicion=grant.suspicion,
            )
        except LeaseLost:
            self._link.returned(self._worker, shard_id, False)
            self._state.release(shard_id)
            return None
        if isinstance(opened, ShardState):
            self._link.sealed(self._worker, sealed_shard(opened))
            self._state.release(shard_id)
            return None
        opened.counts = counts_of(opened.log.state)
        self._state.hold(opened)
        return opened

    def _check_last_run(self) -> None:
        """A run opens nothing more once there is a later one: two that live would fence each
        other for ever."""
        if run_opened(self._store, self._run + 1):
            raise TakenOver(f"run {self._run + 1} has taken over")

    def _read(self, held: HeldShard, suspicion: Suspicion | None) -> None:
        """Read the shard's rows as the queue takes them; stop when the shard is no longer ours."""
        try:
            if held.work.all_done:
                return
            self._load(held, suspicion)
            for requests in held.requests(self._defaults, self._state.changed):
                if not self._state.enqueue(held, requests):
                    return
        except RowRejected as error:
            held.reject_all(error, self._state.changed)
        finally:
            self._state.rows_read()

    def _load(self, held: HeldShard, suspicion: Suspicion | None) -> None:
        """Read the rows and, of a suspect shard, say what will be tried before anything is.

        Raises:
            RowRejected: they cannot be read, or it is known what they do to workers.
        """
        most = self._config.job.max_attempts
        if suspicion is not None and suspicion.unreadable(most):
            raise _gave_up(f"{suspicion.deaths} workers died when they read this row's shard")
        held.load(self._config)
        if suspicion is None or held.trial is None:
            return
        self._link.trying(self._worker, held.shard_id, held.trial)
        if suspicion.convicted(held.trial, most):
            raise _gave_up(
                f"{suspicion.deaths} workers died while they worked on this row, the last one "
                "while it worked on nothing else"
            )


def _gave_up(what: str) -> RowRejected:
    return RowRejected(stage="worker", reason="worker_died", message=f"{what} (job.max_attempts)")
