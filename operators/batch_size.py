"""How many rows to batch: found by measuring the work itself, one shape at a time.

More rows a step cost more time a step; beyond the knee of that curve they bring nothing but memory.
A shape begins with few slots and doubles them while that pays; the steps that tell are those of
real rows, so finding out costs nothing. Pure: times, memory and what was remembered are arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from operators.batcher import Shape

FIRST_SLOTS = 4
_SAMPLES = 4
"""Full steps measured at each size; the first of them warms up and does not count."""
_GOOD_ENOUGH = 1.05
"""The smallest size whose rows cost at most so much more than those of the best one is taken."""
_SHAPES = 256
"""Shapes that are kept in mind at a time."""


class Knee:
    """The search for one shape: ``slots`` is the size to use now.

    Once it is ``settled``, only a batch that does not fit makes it smaller.

    Args:
        most: no more slots than this.
        may_double: whether memory bears twice the present size.
    """

    def __init__(self, *, most: int, may_double: Callable[[], bool]) -> None:
        self.slots = min(FIRST_SLOTS, most)
        self.settled = self.slots == most
        self._most = most
        self._may_double = may_double
        self._samples: list[float] = []
        self._cost: dict[int, float] = {}

    def observe(self, *, rows: int, passes: int, spent_ns: int) -> None:
        """A step of ``rows`` rows, ``passes`` of the denoiser with guidance, took so long."""
        if self.settled or rows != self.slots:
            return
        self._samples.append(spent_ns / passes)
        if len(self._samples) < _SAMPLES:
            return
        self._cost[self.slots] = min(self._samples[1:])
        self._samples = []
        best = min(self._cost, key=lambda slots: self._cost[slots])
        doubled = 2 * self.slots
        # one size that does not pay may be bad luck, two are not
        if self.slots <= 2 * best and doubled <= self._most and self._may_double():
            self.slots = doubled
        else:
            self._settle(most=self.slots)

    def too_many(self, *, rows: int) -> None:
        """A step of ``rows`` rows did not fit in memory.

        A batch that is larger than ``slots`` began before that was made smaller: it tells nothing.
        """
        if rows > self.slots:
            return
        if self.settled:
            self.slots = max(1, self.slots // 2)
        else:
            self._settle(most=max(1, self.slots // 2))

    def _settle(self, *, most: int) -> None:
        costs = {slots: cost for slots, cost in self._cost.items() if slots <= most}
        limit = min(costs.values(), default=0.0) * _GOOD_ENOUGH
        self.slots = min((slots for slots, cost in costs.items() if cost <= limit), default=most)
        self.settled = True


class BatchSizes:
    """The slots of every shape, found once, remembered, and made smaller when they do not fit.

    Args:
        first: what another run found for a shape, if any.
        found: hears what was found, again when it proved too much.
    """

    def __init__(
        self,
        *,
        most: int,
        may_double: Callable[[], bool],
        first: Callable[[Shape], int | None],
        found: Callable[[Shape, int], None],
    ) -> None:
        self._most = most
        self._may_double = may_double
        self._first = first
        self._found = found
        self._knees: OrderedDict[Shape, Knee] = OrderedDict()

    def slots(self, shape: Shape) -> int:
        """How many rows of this shape to batch now."""
        return self._knee(shape).slots

    def observe(self, shape: Shape, *, rows: int, passes: int, spent_ns: int) -> None:
        """See ``Knee.observe``."""
        self._tell(shape, lambda knee: knee.observe(rows=rows, passes=passes, spent_ns=spent_ns))

    def too_many(self, shape: Shape, *, rows: int) -> None:
        """See ``Knee.too_many``."""
        self._tell(shape, lambda knee: knee.too_many(rows=rows))

    def _tell(self, shape: Shape, tell: Callable[[Knee], None]) -> None:
        knee = self._knee(shape)
        before = (knee.settled, knee.slots)
        tell(knee)
        if knee.settled and before != (True, knee.slots):
            self._found(shape, knee.slots)

    def _knee(self, shape: Shape) -> Knee:
        knee = self._knees.get(shape)
        if knee is None:
            knee = self._knees[shape] = Knee(most=self._most, may_double=self._may_double)
            remembered = self._first(shape)
            if remembered is not None:
                knee.slots, knee.settled = min(remembered, self._most), True
            if len(self._knees) > _SHAPES:
                self._knees.popitem(last=False)
        self._knees.move_to_end(shape)
        return knee
