"""Starts Ray and the actors, replaces workers that die, and ends the run.

The supervisor lives in the driver. It decides nothing about shards: it tells the coordinator who is
gone, and stops when the workers have left.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.actors import CoordinatorActor, WorkerActor, answer_of
from cluster.coordinator import Snapshot
from cluster.worker import WorkerOutcome
from conf.errors import ConfigError, CoordinatorLost
from conf.schema import RunConfig

log = logging.getLogger("imagemill")
_POLL_S = 0.25
_CANCEL_EVERY_S = 2.0
_LEAVE_S = 120.0
"""How long workers that lost their coordinator may take to commit what they finished."""
_FEWEST_CRASHES = 4
_CPU_WORKER = {
    # Measured: 1.15-1.4x faster denoising on CPUs, since freed activations stay mapped.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
    "MALLOC_TOP_PAD_": "268435456",
    # Spinning threads starve whatever shares the cores: measured 1.28 images/s against 0.43.
    "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
}


class Control(Protocol):
    """What may stop a run from outside."""

    @property
    def drain(self) -> str | None:
        """Why to commit what is done and stop, or None."""

    @property
    def abort(self) -> bool:
        """Whether to stop at once."""

    def cancelled(self) -> bool:
        """Whether somebody cancelled the run through the store; asked now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What this run works on; ``shards`` None means all ``total`` of them."""

    run: int
    generation: int
    model_revision: str
    total: int
    shards: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended. ``finished``: every shard of the assignment is sealed."""

    finished: bool
    reason: str
    snapshot: Snapshot
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the cluster gives and a worker takes."""

    workers: int
    gpus_per_worker: float
    threads: int


@dataclass(slots=True)
class _Crew:
    names: dict[Any, str] = field(default_factory=dict)
    actors: dict[str, Any] = field(default_factory=dict)
    hellos: list[Any] = field(default_factory=list)
    started: int = 0


@contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """Connect to the configured cluster, or start Ray here; left as found.

    Raises:
        ConfigError: the cluster cannot be reached.
    """
    cluster = config.cluster
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address == "local":
            cores = max(os.cpu_count() or 1, (cluster.workers or 1))
            ray.init(
                "local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=100 * 1024 * 1024,
                **quiet,
            )
        else:
            ray.init(cluster.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot reach the Ray cluster at cluster.address={cluster.address}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resources(config: RunConfig) -> Resources:
    """Size the crew by the connected cluster."""
    total = ray.cluster_resources()
    gpus, cores = float(total.get("GPU", 0)), int(total.get("CPU", 1))
    wanted = config.cluster.gpus_per_worker
    per_worker = (1.0 if gpus else 0.0) if wanted is None else wanted
    if per_worker > gpus:
        raise ConfigError(
            f"cluster.gpus_per_worker is {per_worker:g}; the cluster has {gpus:g} GPUs"
        )
    fitting = int(gpus / per_worker) if per_worker else 1
    workers = config.cluster.workers or max(1, fitting)
    return Resources(workers=workers, gpus_per_worker=per_worker, threads=max(1, cores // workers))


class Supervisor:
    """One run on a connected cluster. ``run`` is called once."""

    def __init__(self, config: RunConfig, assignment: Assignment, size: Resources) -> None:
        self._config = config
        self._assignment = assignment
        self._size = size
        self._crew = _Crew()
        self._crashes = 0
        self._restarts = 0
        self._done_at_crash = -1
        self._reason = ""
        self._draining = False
        total = assignment.total if assignment.shards is None else len(assignment.shards)
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(num_cpus=0, max_concurrency=8)
            .remote(
                total=assignment.total,
                shards=assignment.shards,
                lease_s=config.cluster.lease_s,
                max_attempts=config.job.max_attempts,
            )
        )
        self._total = total

    def run(self, control: Control, on_progress: Callable[[Snapshot], None]) -> RunEnd:
        """Work until every worker has left.

        Raises:
            ConfigError: no worker could start.
            CoordinatorLost: the coordinator is gone; workers have committed what they finished.
        """
        try:
            self._work(control, on_progress)
            snapshot = self.snapshot()
        except CoordinatorLost:
            self._let_leave(control)
            raise
        reason = "stopped at once" if control.abort and not snapshot.finished else self._reason
        return RunEnd(
            finished=snapshot.finished, reason=reason, snapshot=snapshot, restarts=self._restarts
        )

    def _work(self, control: Control, on_progress: Callable[[Snapshot], None]) -> None:
        if self._total:
            for _ in range(min(self._size.workers, self._total)):
                self._hire()
            self._await_first(control)
        cancel_due_s = time.monotonic() + _CANCEL_EVERY_S
        while self._crew.names and not control.abort:
            if time.monotonic() >= cancel_due_s:
                cancel_due_s = time.monotonic() + _CANCEL_EVERY_S
                if control.cancelled():
                    self._drain("cancelled")
            if control.drain:
                self._drain(control.drain)
            ready, _ = ray.wait(list(self._crew.names), num_returns=1, timeout=_POLL_S)
            for reference in ready:
                self._left(reference)
            on_progress(self.snapshot())

    def _let_leave(self, control: Control) -> None:
        """Wait for the workers to notice that the coordinator is gone and to leave.

        One that only hangs is killed, so that nobody waits for its answer.
        """
        log.warning(
            "the coordinator is gone; the workers commit what is finished and leave",
            extra={"event": "coordinator_lost"},
        )
        ray.kill(self._coordinator)
        running = list(self._crew.names)
        deadline_s = time.monotonic() + _LEAVE_S
        while running and time.monotonic() < deadline_s and not control.abort:
            _, running = ray.wait(running, num_returns=len(running), timeout=_POLL_S)

    def snapshot(self) -> Snapshot:
        """The coordinator's totals.

        Raises:
            CoordinatorLost: it is gone.
        """
        snapshot: Snapshot = answer_of(self._coordinator.snapshot.remote())
        return snapshot

    def _hire(self) -> None:
        """Start one worker under a name that no other ever had."""
        number = self._crew.started
        self._crew.started += 1
        name = f"r{self._assignment.run:04d}-w{number:04d}"
        environment = {"OMP_NUM_THREADS": str(self._size.threads)}
        if not self._size.gpus_per_worker:
            environment |= _CPU_WORKER
        actor = (
            ray.remote(WorkerActor)
            .options(
                num_cpus=1,
                num_gpus=self._size.gpus_per_worker,
                runtime_env={"env_vars": environment},
            )
            .remote(
                self._config.to_mapping(),
                worker=name,
                run=self._assignment.run,
                generation=self._assignment.generation,
                model_revision=self._assignment.model_revision,
                coordinator=self._coordinator,
            )
        )
        self._crew.actors[name] = actor
        self._crew.hellos.append(actor.hello.remote())
        self._crew.names[actor.run.remote()] = name

    def _await_first(self, control: Control) -> None:
        deadline_s = time.monotonic() + self._config.cluster.start_timeout_s
        while time.monotonic() < deadline_s and not control.abort:
            ready, _ = ray.wait(self._crew.hellos, num_returns=1, timeout=_POLL_S)
            if ready:
                self._crew.hellos.clear()
                return
        if not control.abort:
            raise ConfigError(
                f"no worker could start within cluster.start_timeout_s="
                f"{self._config.cluster.start_timeout_s:g}: each needs 1 CPU and "
                f"{self._size.gpus_per_worker:g} GPUs; free in the cluster: "
                f"{_described(ray.available_resources())}"
            )

    def _left(self, reference: Any) -> None:
        """A worker's run ended: well, with an error that stops the job, or by dying."""
        name = self._crew.names.pop(reference)
        del self._crew.actors[name]
        try:
            outcome: WorkerOutcome = ray.get(reference)
        except (RayActorError, RayTaskError) as error:
            self._crashed(name, error)
            return
        answer_of(self._coordinator.gone.remote(name, False))
        if outcome.error is not None:
            self._drain(outcome.message)

    def _crashed(self, name: str, error: RayError) -> None:
        answer_of(self._coordinator.gone.remote(name, True))
        reason = _last_line(error)
        log.warning("worker %s died: %s", name, reason, extra={"event": "worker_died"})
        counts = self.snapshot().counts
        done = counts.rows + counts.quarantined
        self._crashes = 1 if done > self._done_at_crash else self._crashes + 1
        self._done_at_crash = max(done, self._done_at_crash)
        if self._crashes > max(_FEWEST_CRASHES, 4 * self._config.job.max_attempts):
            self._drain(f"{self._crashes} workers died in a row without finishing a row: {reason}")
        elif not self._draining:
            self._restarts += 1
            self._hire()

    def _drain(self, reason: str) -> None:
        if not self._draining:
            self._draining = True
            self._reason = reason
            answer_of(self._coordinator.drain.remote())


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayTaskError) and lines:
        return lines[-1]
    return lines[0] if lines else type(error).__name__


def _described(available: dict[str, float]) -> str:
    names: Sequence[str] = ("CPU", "GPU")
    return ", ".join(f"{available.get(name, 0):g} {name}" for name in names)
