"""Who holds which shard: a pure state machine. Events in, instructions out.

No Ray, no clock, no store: time comes with the events. The board is only an allocator that avoids
double work; what makes double work harmless is the shard log's epochs. Memory grows with the
workers and the shards that failed, not with the job: pending shards are drawn from an iterator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.records import Ranges
from cluster.suspicion import Suspicion, Trial

_LEAST_IDLE_S = 5.0
"""For how long at least a worker without work is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A worker wants one more shard."""

    worker: str
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A worker showed a sign of life."""

    worker: str
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A worker found or made a shard sealed."""

    worker: str
    shard_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """A worker read a suspect shard and begins with the rows of this trial."""

    worker: str
    shard_id: int
    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived:
    """A worker finished the rows of its trial and gives the shard back."""

    worker: str
    shard_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A worker gave a shard back unfinished. ``failed`` casts suspicion on it, where known only on
    the rows that were ``at_work``."""

    worker: str
    shard_id: int
    failed: bool
    at_work: Ranges | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A worker is no more. ``crashed``: it died with its shards, which may have killed it."""

    worker: str
    crashed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time passed."""

    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Grant nothing any more."""


Event = Asked | Beat | Sealed | Trying | Survived | Returned | Gone | Clock | Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Work on this shard; where there is a ``suspicion``, on what it says to try."""

    worker: str
    shard_id: int
    suspicion: Suspicion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to grant now; ask again later."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismiss:
    """Nothing will be granted to this worker again; finish what you hold and leave."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """The worker was silent for too long: these shards are no longer its own."""

    worker: str
    shards: tuple[int, ...]


Instruction = Grant | Wait | Dismiss | Revoke


@dataclass(slots=True)
class _Hold:
    shards: dict[int, Trial | None] = field(default_factory=dict)
    deadline_s: float = 0.0
    alone: bool = False
    heard_s: float = 0.0
    asked_s: float | None = None
    idle_since_s: float | None = None

    def idle_long_enough(self, now_s: float) -> bool:
        """Whether it has had nothing for as long as it took to begin: to keep it any longer costs
        more than to start another one, should a shard come back."""
        if self.idle_since_s is None or self.asked_s is None:
            return False
        return now_s - self.idle_since_s >= max(_LEAST_IDLE_S, self.asked_s - self.heard_s)


class LeaseBoard:
    """Invariants (``validate``): a shard is queued, held by one worker, or sealed, and never two;
    suspicions are remembered only for shards that failed; a suspect shard is held alone.

    Args:
        shards: the ids to work on, each once, lazily.
        total: how many ids there are, with those that are sealed already.
        sealed: how many of them are sealed from the start; the iterator does not yield these.
        lease_s: a worker silent for so long loses its shards.
    """

    def __init__(
        self, shards: Iterator[int], *, total: int, lease_s: float, sealed: int = 0
    ) -> None:
        self._fresh = shards
        self._exhausted = total == sealed
        self._again: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._suspicions: dict[int, Suspicion] = {}
        self._holds: dict[str, _Hold] = {}
        self._lease_s = lease_s
        self._draining = False
        self._drawn = sealed
        self.total = total
        self.sealed = sealed

    @property
    def finished(self) -> bool:
        """Whether every shard is sealed."""
        return self.sealed == self.total

    def is_held(self, shard_id: int, *, by: str) -> bool:
        """Whether this worker holds the shard now."""
        hold = self._holds.get(by)
        return hold is not None and shard_id in hold.shards

    @property
    def held(self) -> int:
        """How many shards are leased now."""
        return sum(len(hold.shards) for hold in self._holds.values())

    def silent(self, now_s: float) -> tuple[str, ...]:
        """The known workers that showed no sign of life for longer than ``lease_s``, with shards or
        without. They stay so until they show one or are said to be gone."""
        return tuple(name for name, hold in self._holds.items() if now_s > hold.deadline_s)

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event in; returns what the shell must do. Unknown workers' words are ignored."""
        match event:
            case Asked():
                return self._asked(event)
            case Beat():
                self._alive(event.worker, event.now_s)
                return []
            case Sealed():
                return self._sealed(event)
            case Trying():
                return self._trying(event)
            case Survived():
                return self._survived(event)
            case Returned():
                return self._returned(event)
            case Gone():
                return self._gone(event)
            case Clock():
                return self._expire(event.now_s)
            case Drain():
                self._draining = True
                return []

    @property
    def useful(self) -> int:
        """The workers that hold shards and the shards that nobody holds, together: more workers
        would have nothing to do."""
        holders = sum(bool(hold.shards) for hold in self._holds.values())
        return holders + self.total - self.sealed - self.held

    def _alive(self, worker: str, now_s: float) -> _Hold:
        hold = self._holds.setdefault(worker, _Hold(heard_s=now_s))
        hold.deadline_s = now_s + self._lease_s
        return hold

    def _asked(self, event: Asked) -> list[Instruction]:
        hold = self._alive(event.worker, event.now_s)
        if self._draining or self.finished:
            return [Dismiss(worker=event.worker)]
        if hold.asked_s is None:
            hold.asked_s = event.now_s
        if hold.alone and hold.shards:
            return [Wait(worker=event.worker)]
        shard_id = self._next(free=not hold.shards)
        if shard_id is None:
            return [self._idle(event, hold)]
        hold.idle_since_s = None
        suspicion = self._suspicions.get(shard_id)
        hold.alone = suspicion is not None
        hold.shards[shard_id] = None
        return [Grant(worker=event.worker, shard_id=shard_id, suspicion=suspicion)]

    def _idle(self, event: Asked, hold: _Hold) -> Wait | Dismiss:
        """Nothing is to be had now. Whoever holds nothing either leaves in a while, unless a shard
        is suspect: it may cost its worker, and somebody has to take it over."""
        if hold.shards or self._suspicions:
            hold.idle_since_s = None
        elif hold.idle_since_s is None:
            hold.idle_since_s = event.now_s
        elif hold.idle_long_enough(event.now_s):
            return Dismiss(worker=event.worker)
        return Wait(worker=event.worker)

    def _next(self, *, free: bool) -> int | None:
        """A suspect goes only to a worker that holds nothing, so that it fails alone."""
        if free and self._suspects:
            return self._suspects.popleft()
        if self._again:
            return self._again.popleft()
        if self._exhausted:
            return None
        shard_id = next(self._fresh, None)
        if shard_id is None:
            self._exhausted = True
            return None
        self._drawn += 1
        return shard_id

    def _held_by(self, worker: str, shard_id: int) -> _Hold | None:
        hold = self._holds.get(worker)
        return hold if hold is not None and shard_id in hold.shards else None

    def _sealed(self, event: Sealed) -> list[Instruction]:
        hold = self._held_by(event.worker, event.shard_id)
        if hold is None:
            return []
        del hold.shards[event.shard_id]
        self._suspicions.pop(event.shard_id, None)
        self.sealed += 1
        return []

    def _trying(self, event: Trying) -> list[Instruction]:
        hold = self._held_by(event.worker, event.shard_id)
        if hold is not None:
            hold.shards[event.shard_id] = event.trial
        return []

    def _survived(self, event: Survived) -> list[Instruction]:
        hold = self._held_by(event.worker, event.shard_id)
        if hold is None:
            return []
        trial = hold.shards.pop(event.shard_id)
        suspicion = self._suspicions.pop(event.shard_id, None)
        left = suspicion.survived(trial) if suspicion and trial else suspicion
        if left is not None:
            self._suspicions[event.shard_id] = left
        self._requeue(event.shard_id)
        return []

    def _returned(self, event: Returned) -> list[Instruction]:
        hold = self._held_by(event.worker, event.shard_id)
        if hold is None:
            return []
        trial = hold.shards.pop(event.shard_id)
        if event.failed:
            self._suspect(event.shard_id, trial, event.at_work)
        self._requeue(event.shard_id)
        return []

    def _gone(self, event: Gone) -> list[Instruction]:
        hold = self._holds.pop(event.worker, None)
        if hold is not None:
            self._lose(hold.shards, failed=event.crashed)
        return []

    def _expire(self, now_s: float) -> list[Instruction]:
        found: list[Instruction] = []
        for worker, hold in self._holds.items():
            if hold.shards and now_s > hold.deadline_s:
                found.append(Revoke(worker=worker, shards=tuple(hold.shards)))
                self._lose(hold.shards, failed=True)
                hold.shards.clear()
        return found

    def _lose(self, shards: dict[int, Trial | None], *, failed: bool) -> None:
        for shard_id, trial in shards.items():
            if failed:
                self._suspect(shard_id, trial, None)
            self._requeue(shard_id)

    def _suspect(self, shard_id: int, trial: Trial | None, at_work: Ranges | None) -> None:
        before = self._suspicions.get(shard_id, Suspicion())
        self._suspicions[shard_id] = before.died(trial, at_work=at_work)

    def _requeue(self, shard_id: int) -> None:
        """At the back: whoever had to give it back should meet another one first."""
        queue = self._suspects if shard_id in self._suspicions else self._again
        queue.append(shard_id)

    def validate(self) -> None:
        """Check the invariants; for tests."""
        held = [shard for hold in self._holds.values() for shard in hold.shards]
        queued = [*self._again, *self._suspects]
        assert len(set(held)) == len(held), f"held twice: {held}"
        assert len(set(queued)) == len(queued), f"queued twice: {queued}"
        assert not set(held) & set(queued), f"held and queued: {set(held) & set(queued)}"
        assert len(held) + len(queued) + self.sealed == self._drawn, "a shard is lost or doubled"
        assert self.sealed <= self.total
        assert not set(self._again) & self._suspicions.keys(), "a suspect is queued as harmless"
        assert set(self._suspects) <= self._suspicions.keys(), "queued as a suspect without cause"
        for hold in self._holds.values():
            suspects = self._suspicions.keys() & hold.shards.keys()
            assert not suspects or len(hold.shards) == 1, f"suspects not alone: {hold.shards}"
