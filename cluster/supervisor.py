"""Starts the actors, replaces workers that die or hang, and ends the run.

The supervisor lives in the driver. It decides nothing about shards: it tells the coordinator who is
gone, and stops when the workers have left. The connection to Ray is ``ray_session``'s.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.actors import CoordinatorActor, WorkerActor, answer_of
from cluster.coordinator import Snapshot
from cluster.ray_session import Resources
from cluster.worker import WorkerOutcome
from conf.errors import CoordinatorLost, NoWorkers
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
class _Member:
    name: str
    actor: Any
    hello: Any


class Supervisor:
    """One run on a connected cluster. ``run`` is called once."""

    def __init__(self, config: RunConfig, assignment: Assignment, size: Resources) -> None:
        self._config = config
        self._assignment = assignment
        self._size = size
        self._crew: dict[Any, _Member] = {}
        self._hired = 0
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
                config.to_mapping(),
                total=assignment.total,
                shards=assignment.shards,
                lease_s=config.cluster.lease_s,
            )
        )
        self._total = total

    def run(self, control: Control, on_progress: Callable[[Snapshot], None]) -> RunEnd:
        """Work until every worker has left.

        Raises:
            NoWorkers: none could start in time.
            CoordinatorLost: the coordinator is gone; workers have committed what they finished.
        """
        try:
            self._work(control, on_progress)
            snapshot = self.snapshot()
            if not control.abort:
                self._checkpoint()
        except CoordinatorLost:
            self._let_leave(control)
            raise
        finally:
            for member in self._crew.values():
                ray.kill(member.actor)
        reason = "stopped at once" if control.abort and not snapshot.finished else self._reason
        return RunEnd(
            finished=snapshot.finished, reason=reason, snapshot=snapshot, restarts=self._restarts
        )

    def _work(self, control: Control, on_progress: Callable[[Snapshot], None]) -> None:
        if control.drain:
            self._drain(control.drain)
        elif self._total:
            for _ in range(min(self._size.workers, self._total)):
                self._hire()
            self._await_first(control)
        cancel_due_s = time.monotonic() + _CANCEL_EVERY_S
        while self._crew and not control.abort:
            if time.monotonic() >= cancel_due_s:
                cancel_due_s = time.monotonic() + _CANCEL_EVERY_S
                if control.cancelled():
                    self._drain("cancelled")
            if control.drain:
                self._drain(control.drain)
            ready, _ = ray.wait(list(self._crew), num_returns=1, timeout=_POLL_S)
            for reference in ready:
                self._left(reference)
            snapshot = self.snapshot()
            self._replace(snapshot.silent)
            if snapshot.finished:
                self._drop_unstarted()
            on_progress(snapshot)

    def _let_leave(self, control: Control) -> None:
        """Wait for the workers to notice that the coordinator is gone and to leave.

        One that only hangs is killed, so that nobody waits for its answer.
        """
        log.warning(
            "the coordinator is gone; the workers commit what is finished and leave",
            extra={"event": "coordinator_lost"},
        )
        ray.kill(self._coordinator)
        running = list(self._crew)
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

    def _checkpoint(self) -> None:
        """Have the last checkpoint written; without it the next run starts later, and no worse."""
        try:
            answer_of(self._coordinator.close.remote())
        except CoordinatorLost as error:
            log.warning(
                "the last checkpoint is missing: %s", error, extra={"event": "checkpoint_missed"}
            )

    def _hire(self) -> None:
        """Start one worker under a name that no other ever had."""
        name = f"r{self._assignment.run:04d}-w{self._hired:04d}"
        self._hired += 1
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
        hello, end = actor.hello.remote(), actor.run.remote()
        self._crew[end] = _Member(name=name, actor=actor, hello=hello)

    def _await_first(self, control: Control) -> None:
        deadline_s = time.monotonic() + self._config.cluster.start_timeout_s
        hellos = [member.hello for member in self._crew.values()]
        while time.monotonic() < deadline_s:
            ready, _ = ray.wait(hellos, num_returns=1, timeout=_POLL_S)
            if ready or control.drain or control.abort:
                return
        raise NoWorkers(
            f"no worker could start within cluster.start_timeout_s="
            f"{self._config.cluster.start_timeout_s:g}: each needs 1 CPU and "
            f"{self._size.gpus_per_worker:g} GPUs; free in the cluster: "
            f"{_described(ray.available_resources())}; free some, or change cluster.*"
        )

    def _left(self, reference: Any) -> None:
        """A worker's run ended: well, with an error that stops the job or only it, or by dying."""
        member = self._crew.pop(reference)
        try:
            outcome: WorkerOutcome = ray.get(reference)
        except RayError as error:
            answer_of(self._coordinator.gone.remote(member.name, True))
            self._lost(member.name, f"died: {_last_line(error)}")
            return
        # one whose engine hangs would not end by itself
        ray.kill(member.actor)
        answer_of(self._coordinator.gone.remote(member.name, False))
        if outcome.error is None:
            return
        if outcome.retryable or outcome.error == CoordinatorLost.__name__:
            # it lost contact, but the coordinator has just answered here
            self._lost(member.name, f"stopped: {outcome.message}")
        else:
            self._drain(outcome.message)

    def _replace(self, silent: Sequence[str]) -> None:
        """Kill workers that hang. Their shards' attempts were counted when the leases ran out, so
        that they are gone without a crash."""
        for end, member in list(self._crew.items()):
            if member.name in silent and end in self._crew:
                self._discard(end)
                self._lost(member.name, f"was silent for {self._config.cluster.lease_s:g} s")

    def _discard(self, end: Any) -> None:
        """Kill a worker whose end nobody waits for, and say that it is gone."""
        member = self._crew.pop(end)
        ray.kill(member.actor)
        answer_of(self._coordinator.gone.remote(member.name, False))

    def _lost(self, name: str, how: str) -> None:
        """Hire another in a worker's place, unless nothing gets done any more."""
        snapshot = self.snapshot()
        done = snapshot.counts.rows + snapshot.counts.quarantined
        self._crashes = 1 if done > self._done_at_crash else self._crashes + 1
        self._done_at_crash = max(done, self._done_at_crash)
        bearable = max(_FEWEST_CRASHES, 4 * self._config.job.max_attempts)
        hopeless = self._crashes > bearable * max(1, self._size.workers)
        replaced = not (hopeless or self._draining or snapshot.finished)
        log.warning(
            "worker %s %s%s",
            name,
            how,
            ": replaced" if replaced else "",
            extra={"event": "worker_lost"},
        )
        if replaced:
            self._restarts += 1
            self._hire()
        elif hopeless:
            self._drain(
                f"{self._crashes} workers in a row were lost without finishing a row; the last "
                f"one, {name}, {how}"
            )

    def _drain(self, reason: str) -> None:
        """Let the workers finish what they have."""
        if self._draining:
            return
        self._draining = True
        self._reason = reason
        answer_of(self._coordinator.drain.remote())
        self._drop_unstarted()

    def _drop_unstarted(self) -> None:
        """Workers that have not even begun are not waited for."""
        for end, member in list(self._crew.items()):
            started, _ = ray.wait([member.hello], timeout=0)
            if not started:
                self._discard(end)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayTaskError) and lines:
        return lines[-1]
    return lines[0] if lines else type(error).__name__


def _described(available: dict[str, float]) -> str:
    names: Sequence[str] = ("CPU", "GPU")
    return ", ".join(f"{available.get(name, 0):g} {name}" for name in names)
