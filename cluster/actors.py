"""The Ray actors: thin shells that give the coordinator and the worker a process of their own."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from cluster.coordinator import BeatReply, Coordinator, Counts, Snapshot, WorkerProgress
from cluster.leases import Dismiss, Grant, Wait
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.worker import Identity, Worker, WorkerOutcome
from conf.schema import parse_config
from operators.engines import load_engine

_ANSWER_S = 60.0


class CoordinatorActor:
    """See ``cluster.coordinator.Coordinator``; ``shards`` None means all of them."""

    def __init__(
        self, *, total: int, shards: Sequence[int] | None, lease_s: float, max_attempts: int
    ) -> None:
        ids = range(total) if shards is None else shards
        self._coordinator = Coordinator(
            iter(ids), total=len(ids), lease_s=lease_s, max_attempts=max_attempts
        )

    def acquire(self, worker: str) -> Grant | Wait | Dismiss:
        return self._coordinator.acquire(worker)

    def sealed(self, worker: str, shard_id: int, counts: Counts) -> None:
        self._coordinator.sealed(worker, shard_id, counts)

    def returned(self, worker: str, shard_id: int, failed: bool) -> None:
        self._coordinator.returned(worker, shard_id, failed)

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        return self._coordinator.beat(worker, progress)

    def gone(self, worker: str, crashed: bool) -> None:
        self._coordinator.gone(worker, crashed)

    def drain(self) -> None:
        self._coordinator.drain()

    def snapshot(self) -> Snapshot:
        return self._coordinator.snapshot()


class RayLink:
    """A worker's link to a coordinator actor."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def acquire(self, worker: str) -> Grant | Wait | Dismiss:
        answer: Grant | Wait | Dismiss = self._ask(self._coordinator.acquire.remote(worker))
        return answer

    def sealed(self, worker: str, shard_id: int, counts: Counts) -> None:
        self._ask(self._coordinator.sealed.remote(worker, shard_id, counts))

    def returned(self, worker: str, shard_id: int, failed: bool) -> None:
        self._ask(self._coordinator.returned.remote(worker, shard_id, failed))

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        reply: BeatReply = self._ask(self._coordinator.beat.remote(worker, progress))
        return reply

    def _ask(self, reference: Any) -> Any:
        return ray.get(reference, timeout=_ANSWER_S)


class WorkerActor:
    """See ``cluster.worker.Worker``. ``hello`` answers once the process is up."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        worker: str,
        run: int,
        generation: int,
        coordinator: Any,
    ) -> None:
        self._config = parse_config(config)
        self._identity = Identity(
            worker=worker,
            run=run,
            generation=generation,
            node=platform.node(),
            gpus=",".join(str(gpu) for gpu in ray.get_gpu_ids()),
        )
        self._link = RayLink(coordinator)

    def hello(self) -> tuple[int, str]:
        """The process id and the GPUs that this worker is pinned to."""
        return os.getpid(), self._identity.gpus

    def run(self) -> WorkerOutcome:
        """Work until nothing is left."""
        config = self._config
        store = Store(
            config.output.path, options=config.storage.options, attempts=config.storage.attempts
        )
        worker = Worker(
            config,
            self._identity,
            store=store,
            shards=PlanReader(store),
            link=self._link,
            make_engine=lambda: load_engine(config.engine, config.model),
        )
        return worker.run()
