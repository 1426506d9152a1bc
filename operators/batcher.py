"""Which rows share the next tick: pure bookkeeping of numbers, shapes and step counts.

Rows of one latent shape form a bucket. Each bucket has its own slots; rows keep their slot until
they are removed, also while other buckets run. Knows nothing of requests, tensors or time: the
only clock is the count of ticks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

Shape = tuple[int, int]
LOOKAHEAD_BATCHES = 6
PATIENCE_TICKS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TickPlan:
    """One tick: ``rows`` share the forward pass, ``entering`` are those that just got a slot.

    ``slots`` is how many rows there was room for; ``others`` says whether rows of another shape
    were inside, which cannot fill them.
    """

    shape: Shape
    entering: tuple[int, ...]
    rows: tuple[int, ...]
    slots: int
    others: bool


@dataclass(slots=True, kw_only=True)
class _Waiting:
    number: int
    steps: int
    added_at: int
    ran: int = 0

    def idle_ticks(self, now: int) -> int:
        return now - self.added_at - self.ran


class Batcher:
    """Buckets, slots and turns.

    The fullest bucket runs; on a tie the one that is running. Within a bucket the rows with the
    most steps enter first, so that the last batch ends together. Whatever was idle for more than
    ``patience_ticks`` goes before all that, longest idle first: nothing starves.
    Invariants: no row enters a bucket whose slots are taken (``max_batch`` of them, unless it was
    resized); a row is in one place.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        lookahead: int | None = None,
        patience_ticks: int = PATIENCE_TICKS,
    ) -> None:
        self.max_batch = max_batch
        self._lookahead = lookahead
        self._patience_ticks = patience_ticks
        self._resized: dict[Shape, int] = {}
        self._waiting: dict[Shape, dict[int, _Waiting]] = {}
        self._running: dict[Shape, dict[int, _Waiting]] = {}
        self._active = 0
        self._shapes: dict[int, Shape] = {}
        self._last: Shape | None = None
        self._tick = 0

    @property
    def room(self) -> int:
        """How many more rows it wants to hold."""
        most = max([self.max_batch, *self._resized.values()])
        lookahead = LOOKAHEAD_BATCHES * most if self._lookahead is None else self._lookahead
        return max(0, lookahead - self.inside)

    @property
    def inside(self) -> int:
        """All rows, with or without a slot."""
        return len(self._shapes)

    @property
    def active(self) -> int:
        """Rows that have a slot. Counted, so that another thread may ask while buckets change."""
        return self._active

    def holds(self, shape: Shape) -> bool:
        """Whether any row of this shape is inside."""
        return shape in self._waiting or shape in self._running

    def slots(self, shape: Shape) -> int:
        """How many rows of this shape may share a tick."""
        return self._resized.get(shape, self.max_batch)

    def resize(self, shape: Shape, slots: int) -> None:
        """Give a bucket that holds rows another number of slots, for as long as it holds any.

        Rows that have a slot keep it.
        """
        self._resized[shape] = slots

    def add(self, number: int, *, shape: Shape, steps: int) -> None:
        """Let a row wait for a slot.

        Raises:
            ValueError: the number is inside already.
        """
        if number in self._shapes:
            raise ValueError(f"row {number} is in the batcher already")
        self._shapes[number] = shape
        row = _Waiting(number=number, steps=steps, added_at=self._tick)
        self._waiting.setdefault(shape, {})[number] = row

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows, finished or unwanted; their slots are free at the next tick."""
        for number in numbers:
            shape = self._shapes.pop(number)
            for buckets in (self._waiting, self._running):
                bucket = buckets.get(shape, {})
                if bucket.pop(number, None) is None:
                    continue
                self._active -= buckets is self._running
                if not bucket:
                    del buckets[shape]
            if not self.holds(shape):
                self._resized.pop(shape, None)

    def next_tick(self) -> TickPlan | None:
        """Choose the bucket, fill its slots and count one tick; None without rows."""
        shape = self._choose()
        if shape is None:
            return None
        entering = self._fill(shape)
        rows = self._running[shape]
        for row in rows.values():
            row.ran += 1
        self._tick += 1
        self._last = shape
        return TickPlan(
            shape=shape,
            entering=entering,
            rows=tuple(rows),
            slots=max(self.slots(shape), len(rows)),
            others=len(self._running) + len(self._waiting) > 1 + (shape in self._waiting),
        )

    def next_waiting(self, shape: Shape, count: int) -> tuple[int, ...]:
        """The rows of a bucket that would get a slot next, in that order."""
        return tuple(row.number for row in self._order(shape)[:count])

    def _choose(self) -> Shape | None:
        shapes = list(dict.fromkeys([*self._running, *self._waiting]))
        if not shapes:
            return None
        idle = {shape: self._longest_idle(shape) for shape in shapes}
        overdue = [shape for shape in shapes if idle[shape] > self._patience_ticks]
        if overdue:
            return max(overdue, key=lambda shape: idle[shape])
        return max(shapes, key=lambda s: (self._fullness(s), s == self._last, idle[s]))

    def _fullness(self, shape: Shape) -> float:
        held = len(self._running.get(shape, ())) + len(self._waiting.get(shape, ()))
        return min(1.0, held / self.slots(shape))

    def _longest_idle(self, shape: Shape) -> int:
        buckets = (self._running.get(shape, {}), self._waiting.get(shape, {}))
        return max(row.idle_ticks(self._tick) for bucket in buckets for row in bucket.values())

    def _order(self, shape: Shape) -> list[_Waiting]:
        def place(row: _Waiting) -> tuple[int, int, int]:
            idle = row.idle_ticks(self._tick)
            overdue = idle if idle > self._patience_ticks else 0
            return (-overdue, -row.steps, row.number)

        return sorted(self._waiting.get(shape, {}).values(), key=place)

    def _fill(self, shape: Shape) -> tuple[int, ...]:
        running = self._running.setdefault(shape, {})
        entering = self._order(shape)[: max(0, self.slots(shape) - len(running))]
        waiting = self._waiting.get(shape, {})
        for row in entering:
            running[row.number] = waiting.pop(row.number)
        self._active += len(entering)
        if not waiting:
            self._waiting.pop(shape, None)
        return tuple(row.number for row in entering)
