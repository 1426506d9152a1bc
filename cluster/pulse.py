"""The pulse: a worker's signs of life, to the coordinator and as stamps in the store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cluster.coordinator import CoordinatorLink, WorkerProgress
from cluster.lifetime import Lifetime, persist
from cluster.money import cost_so_far
from cluster.reading import Reading
from cluster.records import Stamp
from cluster.store import Store
from cluster.worker_state import WorkerState
from conf.errors import CoordinatorLost, Preempted, StoreFull, StoreRefused, StoreUnavailable
from operators.engine import EngineInfo, EngineStats

log = logging.getLogger("imagemill")
_STAMP_EVERY_S = 10.0


class Pulse:
    """One thread's work: ``run`` returns after ``stop``.

    It stamps until it is stopped, whatever else failed: the worker is paid for until then. It beats
    until the coordinator is lost.

    Args:
        stats: the engine's totals now; None while there is no engine.
        engine: what the engine is; None while there is none.
        told: hears at each beat what the coordinator is told, and more.
    """

    def __init__(
        self,
        state: WorkerState,
        lifetime: Lifetime,
        *,
        store: Store,
        link: CoordinatorLink,
        worker: str,
        heartbeat_s: float,
        stats: Callable[[], EngineStats | None],
        engine: Callable[[], EngineInfo | None],
        told: Callable[[Reading], None],
    ) -> None:
        self._state = state
        self._lifetime = lifetime
        self._store = store
        self._hasty_store = store.with_patience(0)
        self._link = link
        self._worker = worker
        self._heartbeat_s = heartbeat_s
        self._stats = stats
        self._engine = engine
        self._told = told
        self._stopped = threading.Event()
        self._stamping = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Beat and stamp at their intervals."""
        stamped_at_s = time.monotonic()
        while not self._stopped.wait(self._heartbeat_s):
            self.beat()
            if time.monotonic() - stamped_at_s >= _STAMP_EVERY_S:
                stamped_at_s = time.monotonic()
                self._try_persist()

    def _try_persist(self) -> None:
        """A stamp that the store did not take is superseded by the next one; waiting for the store
        would stop the heart."""
        if self._closed:
            return
        try:
            with self._stamping:
                if not self._closed:
                    persist(self._hasty_store, self.stamp())
        except (StoreUnavailable, StoreRefused, StoreFull) as error:
            log.warning("no stamp was written: %s", error, extra={"event": "stamp_missed"})

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stopped.set()

    def beat(self) -> None:
        """Report to the coordinator and take its orders; losing it fails the worker."""
        progress = self._progress()
        self._told(self._reading(progress))
        if self._state.coordinator_lost:
            return
        try:
            reply = self._link.beat(self._worker, progress)
        except CoordinatorLost as error:
            self._state.fail(error)
            return
        self._state.revoke(reply.revoked)
        if reply.preempted:
            self._state.fail(Preempted("its node is being taken away"))
        if reply.drain:
            self._state.drain()

    def stamp(self, *, closed: bool = False) -> Stamp:
        """The evidence of the worker's lifetime now."""
        stats = self._stats()
        return self._lifetime.stamp(stats, self._store.traffic.now, closed=closed)

    def persist(self) -> None:
        """Write a stamp where the ledger finds it."""
        persist(self._store, self.stamp())

    def close(self) -> None:
        """Write the last stamp, however long the store takes; the heart goes on beating."""
        self._closed = True
        with self._stamping:
            persist(self._store, self.stamp(closed=True))

    def _reading(self, progress: WorkerProgress) -> Reading:
        return Reading(
            progress=progress,
            stats=self._stats(),
            requests=self._store.traffic.now,
            retries=self._store.traffic.retries,
            queues=self._state.queues(),
        )

    def _progress(self) -> WorkerProgress:
        stamp = self.stamp()
        return WorkerProgress(
            phase=self._state.phase,
            holding=self._state.holding(),
            made=self._state.made,
            commits=self._state.commits,
            preempted=isinstance(self._state.failure, Preempted),
            occupied=stamp.occupied,
            offered=stamp.offered,
            lifetime_ns=stamp.lifetime_ns,
            cost_nano=cost_so_far(stamp),
            nano_per_hour=self._lifetime.nano_per_hour,
            engine=self._engine(),
        )
