"""One worker in this process: the simulated engine with hooks, the real coordinator, no Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.coordinator import BeatReply, Coordinator, WorkerProgress
from cluster.leases import Dismiss, Grant, Wait
from cluster.records import Ranges
from cluster.sealed_shard import SealedShard
from cluster.store import Store
from cluster.suspicion import Trial
from cluster.tables import read_parquet
from cluster.worker import Identity, Worker, WorkerOutcome
from jobs.verify import verify
from operators.engine import EngineInfo, EngineStats, ImageFailure, ImageResult
from operators.engines import load_engine
from operators.request import Request
from tests.small_jobs import SmallJob, prepare_small_job, price_here

TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
ROWS = [{"prompt": f"picture {n}"} for n in range(6)]


class Hooked:
    """The simulated engine with a word before each tick and a hand on what comes out."""

    def __init__(
        self,
        small: SmallJob,
        *,
        before_tick: Callable[[], None] = lambda: None,
        change: Callable[[ImageResult | ImageFailure], ImageResult | ImageFailure] = lambda r: r,
    ) -> None:
        self._engine = load_engine(small.config.engine, small.config.model)
        self._before_tick = before_tick
        self._change = change
        self.admitted: list[str] = []
        self.discarded = 0

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def stats(self) -> EngineStats:
        return self._engine.stats

    @property
    def room(self) -> int:
        return self._engine.room

    @property
    def busy(self) -> bool:
        return self._engine.busy

    def admit(self, requests: Sequence[Request]) -> None:
        self.admitted += [request.image_id for request in requests]
        self._engine.admit(requests)

    def tick(self, *, more_to_come: bool = False) -> list[ImageResult | ImageFailure]:
        self._before_tick()
        return [self._change(result) for result in self._engine.tick(more_to_come=more_to_come)]

    def finish(self) -> list[ImageResult | ImageFailure]:
        return [self._change(result) for result in self._engine.finish()]

    def overdue(self, limit_s: float) -> list[Request]:
        return self._engine.overdue(limit_s)

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        dropped = self._engine.discard(unwanted)
        self.discarded += dropped
        return dropped


class Link:
    """The coordinator itself, with a record of what the worker said."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.returns: list[tuple[int, bool]] = []
        self.seals: list[SealedShard] = []
        self.grants: list[Grant] = []
        self.trials: list[Trial] = []
        self.waits = 0
        self.told = threading.Event()
        """The worker beats again after a beat that told it to drop a shard, to drain or to go."""
        self._telling = False

    def acquire(self, worker: str) -> Grant | Wait | Dismiss:
        answer = self.coordinator.acquire(worker)
        if isinstance(answer, Grant):
            self.grants.append(answer)
        self.waits += isinstance(answer, Wait)
        return answer

    def sealed(self, worker: str, seal: SealedShard) -> None:
        self.seals.append(seal)
        self.coordinator.sealed(worker, seal)

    def trying(self, worker: str, shard_id: int, trial: Trial) -> None:
        self.trials.append(trial)
        self.coordinator.trying(worker, shard_id, trial)

    def survived(self, worker: str, shard_id: int) -> None:
        self.coordinator.survived(worker, shard_id)

    def returned(
        self, worker: str, shard_id: int, failed: bool, at_work: Ranges | None = None
    ) -> None:
        self.returns.append((shard_id, failed))
        self.coordinator.returned(worker, shard_id, failed, at_work)

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        if self._telling:
            self.told.set()
        reply = self.coordinator.beat(worker, progress)
        self._telling = self._telling or reply.drain or reply.preempted or bool(reply.revoked)
        return reply


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Stage:
    """A planned job, a coordinator with its own clock, and workers on request."""

    def __init__(
        self, tmp_path: Path, rows: Sequence[dict[str, Any]] = ROWS, **changes: Any
    ) -> None:
        self.small = prepare_small_job(tmp_path, rows, **{**TINY, **changes})
        self.clock = Clock()
        self.link = self.new_link()

    def new_link(self) -> Link:
        """A coordinator that knows of nothing yet."""
        return Link(
            Coordinator(
                iter(range(self.small.plan.shards)),
                total=self.small.plan.shards,
                lease_s=60.0,
                clock=self.clock,
            )
        )

    def worker(self, engine: Any, *, name: str = "w1", store: Store | None = None) -> Worker:
        return Worker(
            self.small.config,
            Identity(
                worker=name,
                run=1,
                generation=0,
                node="here",
                gpus="",
                price=price_here(self.small.config),
            ),
            store=store or self.small.store,
            shards=self.small.plan,
            link=self.link,
            make_engine=lambda: engine,
        )

    def run(self, engine: Any = None, **how: Any) -> WorkerOutcome:
        return self.worker(engine or Hooked(self.small), **how).run()

    def whole(self) -> tuple[int, int, int]:
        """(committed, quarantined, pending) of an output that verifies."""
        found = verify(self.small.store, threads=2)
        assert found.problems == ()
        return found.committed, found.quarantined, found.pending


def quarantine(store: Store) -> list[dict[str, Any]]:
    return sorted(
        (
            row
            for entry in store.listing("quarantine/")
            for row in read_parquet(store.get(entry.key) or b"").to_pylist()
        ),
        key=lambda row: row["row_id"],
    )
