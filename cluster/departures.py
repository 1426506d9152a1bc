"""How workers end: well, sent away, by an error, silent or dead, and what follows from it.

Tells a worker that went through no fault of its own from one that was lost; only the latter speaks
against its node, its rows and the run.
"""

from __future__ import annotations

import logging
import time

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from cluster.actors import answer_of
from cluster.coordinator import Snapshot
from cluster.crew import Member
from cluster.setbacks import Loss
from cluster.staff import Staff
from cluster.worker import WorkerOutcome
from conf.errors import CoordinatorLost, EngineHung, NoImages, OptionRefused, Preempted
from conf.schema import RunConfig

log = logging.getLogger("imagemill")
POLL_S = 0.25
_CUT_OFF = "the connection to it broke, and with it what it had to report"


class Departures:
    """Takes the members of a staff off its books, and has others hired in their place."""

    def __init__(self, config: RunConfig, staff: Staff) -> None:
        self._config = config
        self._staff = staff

    def left(self, member: Member) -> None:
        """A worker's run ended: well, sent away, with an error that stops the job or only it, or
        by dying."""
        try:
            outcome: WorkerOutcome = ray.get(member.end)
        except ActorUnavailableError:
            self._staff.crew.keep_asking(member)
            time.sleep(POLL_S)
            return
        except RayError as error:
            self._died(member, _last_line(error))
            return
        if member.unreachable:
            outcome = WorkerOutcome(worker=member.name, error="", message=_CUT_OFF, retryable=True)
        # one whose engine hangs would not end by itself
        ray.kill(member.actor)
        answer_of(self._staff.coordinator.gone.remote(member.name, False))
        if outcome.error is None:
            return
        if outcome.error == Preempted.__name__:
            self._staff.vacancies += member.leave_by_s is None
            self._went(member, f"left: {outcome.message}")
        elif outcome.retryable or outcome.error == CoordinatorLost.__name__:
            # it lost contact, but the coordinator has just answered here
            hung = outcome.error == EngineHung.__name__
            loss = Loss.HUNG if hung else Loss.STOPPED
            self._lost(member, f"stopped: {outcome.message}", loss)
        else:
            futile = outcome.error in (OptionRefused.__name__, NoImages.__name__)
            self._staff.drain(outcome.message, futile=futile)

    def _died(self, member: Member, how: str) -> None:
        """A worker that went with its machine is no evidence against the rows that it held."""
        self._staff.look()
        node_gone = all(node.node_id != member.node_id for node in self._staff.nodes)
        sent_away = member.leave_by_s is not None
        answer_of(self._staff.coordinator.gone.remote(member.name, not (node_gone or sent_away)))
        if sent_away:
            self._went(member, "was taken away before it had left")
        elif node_gone:
            self._staff.vacancies += 1
            self._went(member, "was lost with its node")
        else:
            self._lost(member, f"died: {how}", Loss.DIED)

    def _went(self, member: Member, how: str) -> None:
        """A worker is gone through no fault of its own; whoever fits takes its place."""
        self._say(member, how, vacated=member.node_id)

    def _lost(self, member: Member, how: str, loss: Loss) -> None:
        """Hire another in a worker's place, unless nothing gets done any more."""
        answer_of(self._staff.coordinator.lost.remote(loss))
        self._staff.setbacks.progress(self._staff.snapshot().commits)
        self._staff.setbacks.lost(crashed=loss.crashed)
        if member.node_id is not None:
            self._staff.lost_on[member.node_id] += 1
        self._staff.vacancies += 1
        self._say(member, how, vacated=member.node_id)
        if self._staff.setbacks.hopeless:
            self._staff.drain(
                f"{self._staff.setbacks.in_a_row} workers in a row were lost without a commit; the "
                f"last one, {member.name}, {how}"
            )

    def _say(self, member: Member, how: str, *, vacated: str | None) -> None:
        """Hire in a worker's place where that can be now, and say what became of both."""
        before = self._staff.restarts
        self._staff.look()
        self._staff.hire(self._staff.snapshot(), vacated)
        log.warning(
            "worker %s %s%s",
            member.name,
            how.rstrip("."),
            ": replaced" if self._staff.restarts > before else "",
            extra={"event": "worker_lost"},
        )

    def replace_silent(self, snapshot: Snapshot) -> None:
        """Kill workers that hang. Their shards' attempts were counted when the leases ran out, so
        that they are gone without a crash."""
        for member in self._staff.crew:
            if member.name in snapshot.silent:
                self._staff.discard(member)
                how = f"was silent for {self._config.cluster.lease_s:g} s"
                self._lost(member, how, Loss.SILENT)

    def take_leave(self, snapshot: Snapshot) -> None:
        """Note who was told to go by its machine; those who are still here after their notice are
        killed."""
        for member in self._staff.crew:
            if member.leave_by_s is None:
                if member.name in snapshot.preempted:
                    self._staff.send_away(member, "was told to go")
            elif time.monotonic() > member.leave_by_s:
                self._staff.discard(member)
                notice_s = self._config.cluster.preemption_notice_s
                self._went(member, f"was killed {notice_s:g} s after it had been told to go")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayTaskError) and lines:
        return lines[-1]
    return lines[0] if lines else type(error).__name__
