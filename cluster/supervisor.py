"""Hires workers where they fit, replaces those that are lost, and ends the run.

The supervisor lives in the driver. It decides nothing about shards: it tells the coordinator who is
gone and who has to go, and stops when the workers have left. Where Ray keeps its nodes is
``nodes``'s, where a worker goes is ``hiring``'s, when to give up is ``setbacks``'s.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors import CoordinatorActor, answer_of
from cluster.coordinator import Snapshot
from cluster.crew import Assignment, Crew, Member
from cluster.hiring import choose_nodes
from cluster.nodes import Node, described
from cluster.ray_session import Resources
from cluster.setbacks import Setbacks
from cluster.worker import WorkerOutcome
from conf.errors import CoordinatorLost, EngineHung, NoWorkers, Preempted
from conf.schema import RunConfig

log = logging.getLogger("imagemill")
_POLL_S = 0.25
_LOOK_EVERY_S = 2.0
"""How often to look for nodes that came, went or are being taken away."""
_CUT_OFF = "the connection to it broke, and with it what it had to report"
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
    many workers were hired in the place of others."""

    finished: bool
    reason: str
    snapshot: Snapshot
    restarts: int


class Supervisor:
    """One run on a connected cluster. ``run`` is called once."""

    def __init__(self, config: RunConfig, assignment: Assignment, size: Resources) -> None:
        self._config = config
        self._size = size
        self._setbacks = Setbacks(crew=size.workers, max_attempts=config.job.max_attempts)
        self._restarts = 0
        self._vacancies = 0
        self._lost_on: Counter[str] = Counter()
        self._nodes: tuple[Node, ...] = ()
        self._look_due_s = 0.0
        self._assembled = False
        self._strong_at_s = time.monotonic()
        self._no_workers: NoWorkers | None = None
        self._reason = ""
        self._draining = False
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
            )
        )
        self._crew = Crew(config, assignment, size, self._coordinator)
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
            snapshot = self.snapshot()
            if not control.abort:
                self._checkpoint()
        except CoordinatorLost:
            self._let_leave(control)
            raise
        finally:
            self._crew.kill_all()
        if self._no_workers is not None and not snapshot.finished:
            raise self._no_workers
        reason = "stopped at once" if control.abort and not snapshot.finished else self._reason
        return RunEnd(
            finished=snapshot.finished, reason=reason, snapshot=snapshot, restarts=self._restarts
        )

    def _work(self, control: Control, on_progress: Callable[[Snapshot], None]) -> None:
        self._stop_if_asked(control)
        snapshot = self.snapshot()
        self._strong_at_s = time.monotonic()
        while not control.abort and (self._crew or not (self._draining or snapshot.finished)):
            self._stop_if_asked(control)
            self._await_ends()
            self._crew.note_started()
            snapshot = self.snapshot()
            self._setbacks.progress(snapshot.commits)
            self._take_leave(snapshot)
            self._replace_silent(snapshot)
            if time.monotonic() >= self._look_due_s:
                self._look()
                self._hire(snapshot)
            self._check_strength(snapshot)
            if snapshot.finished or self._draining:
                self._drop_unstarted()
            on_progress(snapshot)

    def _stop_if_asked(self, control: Control) -> None:
        reason = control.drain or control.cancelled()
        if reason:
            self._drain(reason)

    def _await_ends(self) -> None:
        if not self._crew:
            time.sleep(_POLL_S)
            return
        for member in self._crew.await_end(_POLL_S):
            self._left(member)

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
            self._crew.await_end(_POLL_S)

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

    # --- hiring ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """See which nodes there are now; those on nodes that are being taken away have to go."""
        self._look_due_s = time.monotonic() + _LOOK_EVERY_S
        self._nodes = answer_of(self._coordinator.nodes.remote())
        going = {node.node_id for node in self._nodes if node.draining}
        for member in self._crew:
            if member.node_id in going:
                self._send_away(member, "its node is being taken away")

    def _hire(self, snapshot: Snapshot, vacated: str | None = None) -> None:
        """Hire whom the run may have and the nodes have room for."""
        now_s = time.monotonic()
        left = snapshot.shards - snapshot.sealed
        most = left if self._size.most is None else min(left, self._size.most)
        wanted = self._setbacks.may_hire(now_s, most - self._crew.staying)
        if self._draining or self._setbacks.hopeless or wanted <= 0:
            return
        for node_id in self._places(wanted, left, vacated):
            member = self._crew.hire(node_id, now_s=now_s)
            self._setbacks.hired(now_s)
            self._restarts += self._vacancies > 0
            self._vacancies = max(0, self._vacancies - 1)
            log.debug("worker %s on node %s", member.name, node_id, extra={"event": "hired"})

    def _places(self, wanted: int, left: int, vacated: str | None) -> list[str | None]:
        """Nodes that have room; where an autoscaler may add some, None for each that it should."""
        found = choose_nodes(
            self._nodes,
            self._crew.placed(),
            shape=self._size.shape,
            wanted=wanted,
            per_node=self._size.per_node,
            lost_on=self._lost_on,
            vacated=vacated,
        )
        if not self._size.grows:
            return [*found]
        asked = min(left, self._size.most or self._size.least)
        missing = asked - self._crew.staying - len(found)
        return [*found, *[None] * min(missing, wanted - len(found))]

    def _check_strength(self, snapshot: Snapshot) -> None:
        """Give up when too few could start, or when none has been at work for too long."""
        now_s = time.monotonic()
        patience_s = self._config.cluster.start_timeout_s
        for member in self._crew:
            if not member.started and now_s > member.hired_at_s + patience_s:
                self._discard(member)
        started = self._crew.started
        needed = 1 if self._assembled else min(self._size.least, snapshot.shards - snapshot.sealed)
        if started >= needed:
            self._assembled = True
            self._strong_at_s = max(now_s, self._setbacks.hire_at_s)
        elif now_s > self._strong_at_s + patience_s and not self._draining:
            self._no_workers = self._too_few(started)
            self._drain(str(self._no_workers))

    def _too_few(self, started: int) -> NoWorkers:
        whole = [node for node in self._nodes if not node.draining]
        who = f"only {started} of {self._size.least} workers" if started else "no worker"
        return NoWorkers(
            f"{who} could start within cluster.start_timeout_s="
            f"{self._config.cluster.start_timeout_s:g}: each needs {self._size.shape}; free in the "
            f"cluster: {described(whole, free=True)}; in all: {described(whole, free=False)}; "
            "free some, or change cluster.*"
        )

    def _drop_unstarted(self) -> None:
        """Workers that have not even begun are not waited for."""
        for member in self._crew:
            if not member.started:
                self._discard(member)

    def _discard(self, member: Member) -> None:
        """Kill a worker whose end nobody waits for, and say that it is gone."""
        self._crew.dismiss(member)
        answer_of(self._coordinator.gone.remote(member.name, False))

    # --- leaving --------------------------------------------------------------------------------

    def _left(self, member: Member) -> None:
        """A worker's run ended: well, sent away, with an error that stops the job or only it, or
        by dying."""
        try:
            outcome: WorkerOutcome = ray.get(member.end)
        except ActorUnavailableError:
            self._crew.keep_asking(member)
            time.sleep(_POLL_S)
            return
        except RayError as error:
            self._died(member, _last_line(error))
            return
        if member.unreachable:
            outcome = WorkerOutcome(worker=member.name, error="", message=_CUT_OFF, retryable=True)
        # one whose engine hangs would not end by itself
        ray.kill(member.actor)
        answer_of(self._coordinator.gone.remote(member.name, False))
        if outcome.error is None:
            return
        if outcome.error == Preempted.__name__:
            self._vacancies += member.leave_by_s is None
            self._went(member, f"left: {outcome.message}")
        elif outcome.retryable or outcome.error == CoordinatorLost.__name__:
            # it lost contact, but the coordinator has just answered here
            hung = outcome.error == EngineHung.__name__
            self._lost(member, f"stopped: {outcome.message}", crashed=hung)
        else:
            self._drain(outcome.message)

    def _died(self, member: Member, how: str) -> None:
        """A worker that went with its machine is no evidence against the rows that it held."""
        self._look()
        node_gone = all(node.node_id != member.node_id for node in self._nodes)
        sent_away = member.leave_by_s is not None
        answer_of(self._coordinator.gone.remote(member.name, not (node_gone or sent_away)))
        if sent_away:
            self._went(member, "was taken away before it had left")
        elif node_gone:
            self._vacancies += 1
            self._went(member, "was lost with its node")
        else:
            self._lost(member, f"died: {how}", crashed=True)

    def _went(self, member: Member, how: str) -> None:
        """A worker is gone through no fault of its own; whoever fits takes its place."""
        self._say(member, how, vacated=member.node_id)

    def _lost(self, member: Member, how: str, *, crashed: bool) -> None:
        """Hire another in a worker's place, unless nothing gets done any more."""
        self._setbacks.progress(self.snapshot().commits)
        self._setbacks.lost(crashed=crashed)
        if member.node_id is not None:
            self._lost_on[member.node_id] += 1
        self._vacancies += 1
        self._say(member, how, vacated=member.node_id)
        if self._setbacks.hopeless:
            self._drain(
                f"{self._setbacks.in_a_row} workers in a row were lost without a commit; the last "
                f"one, {member.name}, {how}"
            )

    def _say(self, member: Member, how: str, *, vacated: str | None) -> None:
        """Hire in a worker's place where that can be now, and say what became of both."""
        before = self._restarts
        self._look()
        self._hire(self.snapshot(), vacated)
        log.warning(
            "worker %s %s%s",
            member.name,
            how,
            ": replaced" if self._restarts > before else "",
            extra={"event": "worker_lost"},
        )

    def _replace_silent(self, snapshot: Snapshot) -> None:
        """Kill workers that hang. Their shards' attempts were counted when the leases ran out, so
        that they are gone without a crash."""
        for member in self._crew:
            if member.name in snapshot.silent:
                self._discard(member)
                how = f"was silent for {self._config.cluster.lease_s:g} s"
                self._lost(member, how, crashed=True)

    def _take_leave(self, snapshot: Snapshot) -> None:
        """Note who was told to go by its machine; those who are still here after their notice are
        killed."""
        for member in self._crew:
            if member.leave_by_s is None:
                if member.name in snapshot.preempted:
                    self._send_away(member, "was told to go")
            elif time.monotonic() > member.leave_by_s:
                self._discard(member)
                notice_s = self._config.cluster.preemption_notice_s
                self._went(member, f"was killed {notice_s:g} s after it had been told to go")

    def _send_away(self, member: Member, why: str) -> None:
        """A worker commits what is finished and leaves, or has not begun and is dropped; its place
        is free for another from now on."""
        if member.leave_by_s is not None:
            return
        member.leave_by_s = time.monotonic() + self._config.cluster.preemption_notice_s
        self._vacancies += 1
        log.warning(
            "worker %s: %s; it commits what is finished and leaves",
            member.name,
            why,
            extra={"event": "worker_sent_away"},
        )
        if member.started:
            answer_of(self._coordinator.preempt.remote(member.name))
        else:
            self._discard(member)

    def _drain(self, reason: str) -> None:
        """Let the workers finish what they have."""
        if self._draining:
            return
        self._draining = True
        self._reason = reason
        answer_of(self._coordinator.drain.remote())
        self._drop_unstarted()


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayTaskError) and lines:
        return lines[-1]
    return lines[0] if lines else type(error).__name__
