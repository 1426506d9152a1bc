"""Who holds which shard: a pure state machine. Events in, instructions out.

No Ray, no clock, no store: time comes with the events. The board is only an allocator that avoids
double work; what makes double work harmless is the shard log's epochs. Memory grows with the
workers and the shards that failed, not with the job: pending shards are drawn from an iterator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field


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
class Returned:
    """A worker gave a shard back unfinished; ``failed`` counts as an attempt."""

    worker: str
    shard_id: int
    failed: bool


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


Event = Asked | Beat | Sealed | Returned | Gone | Clock | Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Work on this shard. ``give_up``: quarantine its unfinished rows instead of making them."""

    worker: str
    shard_id: int
    attempt: int
    give_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to grant now; ask again later."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismiss:
    """Nothing will ever be granted again; finish what you hold and leave."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """The worker was silent for too long: these shards are no longer its own."""

    worker: str
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Every shard is sealed."""


Instruction = Grant | Wait | Dismiss | Revoke | Finished


@dataclass(slots=True)
class _Hold:
    shards: dict[int, int] = field(default_factory=dict)
    deadline_s: float = 0.0
    alone: bool = False


class LeaseBoard:
    """Invariants (``validate``): a shard is queued, held by one worker, or sealed, and never two;
    attempts are remembered only for shards that failed; a suspect shard is held alone.

    Args:
        shards: the ids to work on, each once, lazily.
        total: how many ids there are, with those that are sealed already.
        sealed: how many of them are sealed from the start; the iterator does not yield these.
        lease_s: a worker silent for so long loses its shards.
        max_attempts: failures after which a shard's unfinished rows are given up.
    """

    def __init__(
        self,
        shards: Iterator[int],
        *,
        total: int,
        lease_s: float,
        max_attempts: int,
        sealed: int = 0,
    ) -> None:
        self._fresh = shards
        self._exhausted = total == sealed
        self._again: deque[int] = deque()
        self._failures: dict[int, int] = {}
        self._holds: dict[str, _Hold] = {}
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._draining = False
        self._drawn = sealed
        self.total = total
        self.sealed = sealed

    @property
    def finished(self) -> bool:
        """Whether every shard is sealed."""
        return self.sealed == self.total

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
            case Returned():
                return self._returned(event)
            case Gone():
                return self._gone(event)
            case Clock():
                return self._expire(event.now_s)
            case Drain():
                self._draining = True
                return []

    def _alive(self, worker: str, now_s: float) -> _Hold:
        hold = self._holds.setdefault(worker, _Hold())
        hold.deadline_s = now_s + self._lease_s
        return hold

    def _asked(self, event: Asked) -> list[Instruction]:
        hold = self._alive(event.worker, event.now_s)
        if self._draining or self.finished:
            return [Dismiss(worker=event.worker)]
        if hold.alone and hold.shards:
            return [Wait(worker=event.worker)]
        shard_id = self._next(free=not hold.shards)
        if shard_id is None:
            return [Wait(worker=event.worker)]
        failures = self._failures.get(shard_id, 0)
        hold.alone = failures > 0
        hold.shards[shard_id] = failures + 1
        return [
            Grant(
                worker=event.worker,
                shard_id=shard_id,
                attempt=failures + 1,
                give_up=failures >= self._max_attempts,
            )
        ]

    def _next(self, *, free: bool) -> int | None:
        """A shard that failed goes only to a worker that holds nothing, so that it fails alone."""
        if self._again and (free or self._failures.get(self._again[0], 0) == 0):
            return self._again.popleft()
        if self._exhausted:
            return None
        shard_id = next(self._fresh, None)
        if shard_id is None:
            self._exhausted = True
            return self._next(free=free) if free and self._again else None
        self._drawn += 1
        return shard_id

    def _sealed(self, event: Sealed) -> list[Instruction]:
        hold = self._holds.get(event.worker)
        if hold is None or event.shard_id not in hold.shards:
            return []
        del hold.shards[event.shard_id]
        self._failures.pop(event.shard_id, None)
        self.sealed += 1
        return [Finished()] if self.finished else []

    def _returned(self, event: Returned) -> list[Instruction]:
        hold = self._holds.get(event.worker)
        if hold is None or event.shard_id not in hold.shards:
            return []
        del hold.shards[event.shard_id]
        self._requeue(event.shard_id, failed=event.failed)
        return []

    def _gone(self, event: Gone) -> list[Instruction]:
        hold = self._holds.pop(event.worker, None)
        if hold is not None:
            for shard_id in hold.shards:
                self._requeue(shard_id, failed=event.crashed)
        return []

    def _expire(self, now_s: float) -> list[Instruction]:
        found: list[Instruction] = []
        for worker, hold in self._holds.items():
            if hold.shards and now_s > hold.deadline_s:
                lost = tuple(hold.shards)
                hold.shards.clear()
                for shard_id in lost:
                    self._requeue(shard_id, failed=True)
                found.append(Revoke(worker=worker, shards=lost))
        return found

    def _requeue(self, shard_id: int, *, failed: bool) -> None:
        if failed:
            self._failures[shard_id] = self._failures.get(shard_id, 0) + 1
            self._again.append(shard_id)
        else:
            self._again.appendleft(shard_id)

    def validate(self) -> None:
        """Check the invariants; for tests."""
        held = [shard for hold in self._holds.values() for shard in hold.shards]
        queued = list(self._again)
        assert len(set(held)) == len(held), f"held twice: {held}"
        assert len(set(queued)) == len(queued), f"queued twice: {queued}"
        assert not set(held) & set(queued), f"held and queued: {set(held) & set(queued)}"
        assert len(held) + len(queued) + self.sealed == self._drawn, "a shard is lost or doubled"
        assert self.sealed <= self.total
        for hold in self._holds.values():
            suspects = [s for s in hold.shards if self._failures.get(s, 0)]
            assert not suspects or len(hold.shards) == 1, f"suspects not alone: {hold.shards}"
