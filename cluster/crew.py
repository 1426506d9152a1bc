"""The worker actors of a run: hired on a node, started, told to go, killed.

A thin shell on Ray. Who is hired where and when is the supervisor's to say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors import Hello, WorkerActor, answer_of
from cluster.budget import NOTHING, Allowance, Spent
from cluster.hiring import Placed
from cluster.ray_session import Resources
from cluster.sizing import Aim
from cluster.worker_environment import worker_environment
from conf.price_book import PriceBook
from conf.schema import RunConfig

log = logging.getLogger("imagemill")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What this run works on, and by which prices; ``shards`` None means all ``total`` of them.
    ``settled``: what earlier runs cost; ``allowance``: what the project's budget leaves at first,
    None: it has none. ``aim``: what decides how many workers are wanted."""

    run: int
    generation: int
    model_revision: str
    total: int
    shards: tuple[int, ...] | None
    book: PriceBook
    settled: Spent = NOTHING
    allowance: Allowance | None = None
    aim: Aim = Aim()


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One worker actor. ``end`` is the reference to its outcome. ``node_id`` is None until a worker
    that was hired for a node still to come has begun.

    ``leave_by_s``: its machine is being taken away, and by then it is killed; None: it stays.
    ``unreachable``: the connection to it broke, and ``end`` only tells whether it lives.
    """

    name: str
    node_id: str | None
    actor: Any
    hello: Any
    end: Any
    hired_at_s: float
    started: bool = False
    leave_by_s: float | None = None
    unreachable: bool = False


class Crew:
    """The members by the reference to their end. Iterating takes a copy: members may go meanwhile.

    Invariant: no two workers of a job ever have the same name.
    """

    def __init__(
        self, config: RunConfig, assignment: Assignment, size: Resources, coordinator: Any
    ) -> None:
        self._config = config.to_mapping()
        self._assignment = assignment
        self._size = size
        self._coordinator = coordinator
        self._book = ray.put(assignment.book)
        self._unpriced: set[str] = set()
        self._members: dict[Any, Member] = {}
        self._hired = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    @property
    def staying(self) -> int:
        """How many are not being taken away."""
        return sum(member.leave_by_s is None for member in self)

    @property
    def started(self) -> int:
        """How many have begun."""
        return sum(member.started for member in self)

    def placed(self) -> list[Placed]:
        """Where they are."""
        return [Placed(node_id=member.node_id, started=member.started) for member in self]

    def hire(self, node_id: str | None, *, now_s: float) -> Member:
        """Start one worker on a node; None: on any, which an autoscaler may have to add first.

        Raises:
            CoordinatorLost: it could not be told.
        """
        name = f"r{self._assignment.run:04d}-w{self._hired:04d}"
        self._hired += 1
        environment = worker_environment(
            os.environ, gpus=self._size.shape.gpus, threads=self._size.threads
        )
        where = NodeAffinitySchedulingStrategy(node_id, soft=False) if node_id else "DEFAULT"
        actor = (
            ray.remote(WorkerActor)
            .options(
                num_cpus=self._size.shape.cpus,
                num_gpus=self._size.shape.gpus,
                scheduling_strategy=where,
                runtime_env={"env_vars": environment},
            )
            .remote(
                self._config,
                worker=name,
                run=self._assignment.run,
                generation=self._assignment.generation,
                model_revision=self._assignment.model_revision,
                book=self._book,
                size=self._size,
                coordinator=self._coordinator,
            )
        )
        hello, end = actor.hello.remote(), actor.run.remote()
        member = Member(
            name=name, node_id=node_id, actor=actor, hello=hello, end=end, hired_at_s=now_s
        )
        self._members[end] = member
        if node_id is not None:
            answer_of(self._coordinator.hired.remote(name))
        return member

    def note_started(self) -> None:
        """Learn who has begun.

        Raises:
            CoordinatorLost: it could not be told what they cost.
        """
        waiting = {member.hello: member for member in self if not member.started}
        if waiting:
            begun, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            for hello in begun:
                self._begun(waiting[hello])

    def _begun(self, member: Member) -> None:
        member.started = True
        try:
            hello: Hello = ray.get(member.hello)
        except RayError:
            return  # its end tells more
        member.node_id = hello.node_id
        answer_of(self._coordinator.begun.remote(member.name, hello.nano_per_hour))
        if hello.unpriced and hello.unpriced not in self._unpriced:
            self._unpriced.add(hello.unpriced)
            log.warning(
                "the time of worker %s on %s has no price: %s; its costs are marked unpriced",
                member.name,
                hello.node,
                hello.unpriced,
                extra={"event": "unpriced"},
            )

    def await_end(self, timeout_s: float) -> list[Member]:
        """Those whose end came within the time, at most one unless several came before; each is a
        member no more."""
        ready, _ = ray.wait(list(self._members), num_returns=1, timeout=timeout_s)
        return [self._members.pop(end) for end in ready]

    def keep_asking(self, member: Member) -> None:
        """The connection to a former member broke: whether it died, and its node with it, Ray finds
        out later. It is a member until then."""
        member.unreachable = True
        member.end = member.actor.hello.remote()
        self._members[member.end] = member

    def dismiss(self, member: Member) -> None:
        """Kill a worker whose end nobody waits for."""
        del self._members[member.end]
        ray.kill(member.actor)

    def kill_all(self) -> None:
        """Nobody is waited for."""
        for member in self:
            self.dismiss(member)
