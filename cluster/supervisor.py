"""Begins a run, watches over it and ends it.

The supervisor lives in the driver. It decides nothing about shards: it tells the coordinator who is
gone and who has to go, and stops when the workers have left. Where Ray keeps its nodes is
``nodes``'s, who is hired is ``staff``'s, what the end of a worker means is ``departures``'s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors import CoordinatorActor, answer_of
from cluster.budget import Allowance
from cluster.coordinator import Snapshot
from cluster.crew import Assignment, Crew
from cluster.crew_size import Staffing
from cluster.departures import POLL_S, Departures
from cluster.nodes import described
from cluster.ray_session import Resources
from cluster.staff import Staff
from cluster.start_timeout import start_timeout
from conf.errors import CoordinatorLost, NoWorkers
from conf.schema import RunConfig

log = logging.getLogger("imagemill")
_LEAVE_S = 120.0
"""How long workers that lost their coordinator may take to commit what they finished."""


class Control(Protocol):
    """What may stop a run from outside. Every answer comes at once."""

    @property
    def drain(self) -> str | None:
        """Why to commit what is done and stop, or None."""

    @property
    def abort(self) -> bool:
        """Whether to stop at once."""

    def cancelled(self) -> str | None:
        """Why the run was stopped through the store, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended. ``finished``: every shard of the assignment is sealed. ``restarts``: how
    many workers were hired in the place of others. ``futile``: another run of this job would end
    the same way."""

    finished: bool
    reason: str
    snapshot: Snapshot
    restarts: int
    futile: bool = False


class Supervisor:
    """One run on a connected cluster. ``run`` is called once."""

    def __init__(self, config: RunConfig, assignment: Assignment, size: Resources) -> None:
        self._config = config
        self._size = size
        self._patience = start_timeout(config.cluster, grows=size.grows)
        self._assembled = False
        self._strong_at_s = time.monotonic()
        self._no_workers: NoWorkers | None = None
        total = assignment.total if assignment.shards is None else len(assignment.shards)
        here = ray.get_runtime_context().get_node_id()
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(
                num_cpus=0,
                max_concurrency=8,
                # beside the driver, without which it is of no use: never on a node that may go
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote(
                config.to_mapping(),
                total=assignment.total,
                shards=assignment.shards,
                lease_s=config.cluster.lease_s,
                settled=assignment.settled,
                allowance=assignment.allowance,
            )
        )
        self._crew = Crew(config, assignment, size, self._coordinator)
        self._staff = Staff(
            config, size, self._crew, self._coordinator, aim=assignment.aim, shards=assignment.total
        )
        self._departures = Departures(config, self._staff)
        self._total = total

    def run(self, control: Control, on_progress: Callable[[Snapshot], None]) -> RunEnd:
        """Work until every worker has left.

        Raises:
            NoWorkers: too few could start in time; those that did have left in order.
            CoordinatorLost: the coordinator is gone; workers have committed what they finished.
        """
        try:
            if self._total:
                self._work(control, on_progress)
            snapshot = self._staff.snapshot()
            if not control.abort:
                self._checkpoint()
        except CoordinatorLost:
            self._let_leave(control)
            raise
        finally:
            self._crew.kill_all()
        if self._no_workers is not None and not snapshot.finished:
            raise self._no_workers
        reason = (
            "stopped at once" if control.abort and not snapshot.finished else self._staff.reason
        )
        return RunEnd(
            finished=snapshot.finished,
            reason=reason,
            snapshot=snapshot,
            restarts=self._staff.restarts,
            futile=self._staff.futile,
        )

    @property
    def staffing(self) -> Staffing | None:
        """Who is at work and wanted, as of the last few seconds; None before anybody is."""
        return self._staff.staffing

    def allow(self, allowance: Allowance) -> None:
        """The project's budget leaves more, or less, to this job from now on.

        Raises:
            CoordinatorLost: it could not be told.
        """
        answer_of(self._coordinator.allow.remote(allowance))

    def _work(self, control: Control, on_progress: Callable[[Snapshot], None]) -> None:
        self._stop_if_asked(control)
        snapshot = self._staff.snapshot()
        self._strong_at_s = time.monotonic()
        while not control.abort and (self._crew or not (self._staff.draining or snapshot.finished)):
            self._stop_if_asked(control)
            self._await_ends()
            self._crew.note_started()
            snapshot = self._staff.snapshot()
            if snapshot.over_budget:
                self._staff.drain(snapshot.over_budget)
            self._staff.setbacks.progress(snapshot.commits)
            self._departures.take_leave(snapshot)
            self._departures.replace_silent(snapshot)
            if time.monotonic() >= self._staff.look_due_s:
                self._staff.look()
                self._staff.hire(snapshot)
            self._check_strength(snapshot)
            if snapshot.finished or self._staff.draining:
                self._staff.drop_unstarted()
            on_progress(snapshot)

    def _stop_if_asked(self, control: Control) -> None:
        reason = control.drain or control.cancelled()
        if reason:
            self._staff.drain(reason)

    def _await_ends(self) -> None:
        if not self._crew:
            time.sleep(POLL_S)
            return
        for member in self._crew.await_end(POLL_S):
            self._departures.left(member)

    def _let_leave(self, control: Control) -> None:
        """Wait for the workers to notice that the coordinator is gone and to leave.

        One that only hangs is killed, so that nobody waits for its answer.
        """
        log.warning(
            "the coordinator is gone; the workers commit what is finished and leave",
            extra={"event": "coordinator_lost"},
        )
        ray.kill(self._coordinator)
        deadline_s = time.monotonic() + _LEAVE_S
        while self._crew and time.monotonic() < deadline_s and not control.abort:
            self._crew.await_end(POLL_S)

    def _checkpoint(self) -> None:
        """Have the last checkpoint written; without it the next run starts later, and no worse."""
        try:
            answer_of(self._coordinator.close.remote())
        except CoordinatorLost as error:
            log.warning(
                "the last checkpoint is missing: %s", error, extra={"event": "checkpoint_missed"}
            )

    def _check_strength(self, snapshot: Snapshot) -> None:
        """Give up when too few could start, or when none has been at work for too long."""
        now_s = time.monotonic()
        for member in self._crew:
            late = not member.started and now_s > member.hired_at_s + self._patience.worker_s
            if late and member.node_id is not None:
                self._staff.discard(member)
        started = self._crew.started
        needed = 1 if self._assembled else min(self._size.least, snapshot.useful)
        if started >= needed:
            self._assembled = True
            self._strong_at_s = max(now_s, self._staff.setbacks.hire_at_s)
        elif now_s > self._strong_at_s + self._patience.crew_s and not self._staff.draining:
            self._no_workers = self._too_few(started)
            self._staff.drain(str(self._no_workers))

    def _too_few(self, started: int) -> NoWorkers:
        whole = [node for node in self._staff.nodes if not node.draining]
        who = f"only {started} of {self._size.least} workers" if started else "no worker"
        how = "free some, or change cluster.*"
        if self._size.grows:
            how = (
                "no autoscaler added what was waited for; see what it says, or give it longer: "
                "cluster.start_timeout_s=…"
            )
        return NoWorkers(
            f"{who} could start within cluster.start_timeout_s="
            f"{self._patience.crew_s:g}: each needs {self._size.shape}; free in the "
            f"cluster: {described(whole, free=True)}; in all: {described(whole, free=False)}; {how}"
        )
