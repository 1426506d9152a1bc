"""Who works on a run, and who is hired next.

Owns the crew and its vacancies. How many there should be is ``crew_size``'s to say, where a worker
goes ``hiring``'s, when to hire no more ``setbacks``'s, what the end of a worker means
``departures``'s.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from cluster.actors import answer_of
from cluster.coordinator import Snapshot
from cluster.crew import Crew, Member
from cluster.crew_size import CrewSize, Staffing
from cluster.headcount import Headcount
from cluster.hiring import choose_nodes, room_on
from cluster.nodes import Node
from cluster.ray_session import Resources
from cluster.setbacks import Setbacks
from cluster.sizing import Aim
from conf.schema import RunConfig

log = logging.getLogger("imagemill")
_LOOK_EVERY_S = 2.0
"""How often to look for nodes that came, went or are being taken away."""


class Staff:
    """The crew of one run, as the nodes and the coordinator see it.

    ``vacancies``: places of lost workers that nobody has taken yet; ``restarts``: how many were
    taken; ``lost_on``: losses by node. ``draining``: nobody is hired any more, for ``reason``.
    ``staffing``: who was there and wanted at the last look; None before it.
    Every call of the coordinator may raise ``CoordinatorLost``.
    """

    def __init__(
        self,
        config: RunConfig,
        size: Resources,
        crew: Crew,
        coordinator: Any,
        *,
        aim: Aim,
        shards: int,
    ) -> None:
        self._config = config
        self._size = size
        self._crew_size = CrewSize(config, size, aim, shards)
        self.crew = crew
        self.coordinator = coordinator
        self.setbacks = Setbacks(crew=size.expected, max_attempts=config.job.max_attempts)
        self.restarts = 0
        self.vacancies = 0
        self.lost_on: Counter[str] = Counter()
        self.nodes: tuple[Node, ...] = ()
        self.look_due_s = 0.0
        self.staffing: Staffing | None = None
        self.draining = False
        self.futile = False
        self.reason = ""

    def snapshot(self) -> Snapshot:
        """The coordinator's totals.

        Raises:
            CoordinatorLost: it is gone.
        """
        snapshot: Snapshot = answer_of(self.coordinator.snapshot.remote())
        return snapshot

    def look(self) -> None:
        """See which nodes there are now; those on nodes that are being taken away have to go."""
        self.look_due_s = time.monotonic() + _LOOK_EVERY_S
        self.nodes = answer_of(self.coordinator.nodes.remote())
        going = {node.node_id for node in self.nodes if node.draining}
        for member in self.crew:
            if member.node_id in going:
                self.send_away(member, "its node is being taken away")

    def hire(self, snapshot: Snapshot, vacated: str | None = None) -> None:
        """Hire whom the run wants, may have and the nodes have room for; who waits and is wanted no
        more is dropped."""
        now_s = time.monotonic()
        wish = self._crew_size.ask(
            snapshot, list(self.crew), room=self._room(vacated), stopping=self.reason
        )
        self._drop_waiting(self.crew.staying - wish.keep)
        wanted = self.setbacks.may_hire(now_s, wish.workers - self.crew.staying)
        if not (self.draining or self.setbacks.hopeless or wanted <= 0):
            for node_id in self._places(wanted, vacated):
                self._hire_on(node_id, now_s)
        waiting = sum(member.node_id is None for member in self.crew)
        self.staffing = Staffing(wish=wish, at_work=self.crew.started, waiting=waiting)
        headcount = Headcount(wanted=wish.workers, waiting=waiting)
        answer_of(self.coordinator.staffed.remote(headcount))

    def _hire_on(self, node_id: str | None, now_s: float) -> None:
        member = self.crew.hire(node_id, now_s=now_s)
        self.setbacks.hired(now_s)
        self.restarts += self.vacancies > 0
        self.vacancies = max(0, self.vacancies - 1)
        log.debug("worker %s on node %s", member.name, node_id, extra={"event": "hired"})

    def _room(self, vacated: str | None) -> int:
        room = room_on(
            self.nodes,
            self.crew.placed(),
            shape=self._size.shape,
            per_node=self._size.per_node,
            vacated=vacated,
        )
        return sum(room.values())

    def _places(self, wanted: int, vacated: str | None) -> list[str | None]:
        """Nodes that have room; where an autoscaler may add some, None for each that it should."""
        found = choose_nodes(
            self.nodes,
            self.crew.placed(),
            shape=self._size.shape,
            wanted=wanted,
            per_node=self._size.per_node,
            lost_on=self.lost_on,
            vacated=vacated,
        )
        missing = wanted - len(found) if self._size.grows else 0
        return [*found, *[None] * missing]

    def _drop_waiting(self, count: int) -> None:
        """Drop up to ``count`` workers that wait for a machine, the newest first; who begins on one
        that is there costs next to nothing, and may yet be needed."""
        waiting = [one for one in self.crew if one.node_id is None and one.leave_by_s is None]
        for member in waiting[::-1][: max(0, count)]:
            log.debug("worker %s is not needed", member.name, extra={"event": "not_needed"})
            self.discard(member)

    def drop_unstarted(self) -> None:
        """Workers that have not even begun are not waited for."""
        for member in self.crew:
            if not member.started:
                self.discard(member)

    def discard(self, member: Member) -> None:
        """Kill a worker whose end nobody waits for, and say that it is gone."""
        self.crew.dismiss(member)
        answer_of(self.coordinator.gone.remote(member.name, False))

    def send_away(self, member: Member, why: str) -> None:
        """A worker commits what is finished and leaves, or has not begun and is dropped; its place
        is free for another from now on."""
        if member.leave_by_s is not None:
            return
        member.leave_by_s = time.monotonic() + self._config.cluster.preemption_notice_s
        self.vacancies += 1
        log.warning(
            "worker %s: %s; it commits what is finished and leaves",
            member.name,
            why,
            extra={"event": "worker_sent_away"},
        )
        if member.started:
            answer_of(self.coordinator.preempt.remote(member.name))
        else:
            self.discard(member)

    def drain(self, reason: str, *, futile: bool = False) -> None:
        """Let the workers finish what they have; ``futile``: another run would end the same way."""
        if self.draining:
            return
        self.draining = True
        self.futile = futile
        self.reason = reason
        answer_of(self.coordinator.drain.remote())
        self.drop_unstarted()
