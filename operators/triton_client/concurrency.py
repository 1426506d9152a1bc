"""How many requests keep a server's batches full: found by the size of its batches. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_FULL = 0.95
_GAIN = 1.02
_MOST_BATCHES = 4
_LOOKS_AFTER_FOUND = 30
_LOOKS_AFTER_REFUSAL = 10
"""Looks after which the search goes on: who else asks the server changes. Until then the server is
not asked for its statistics, which a thousand workers would do all the time."""


class InFlightSearch:
    """Additive increase while batches are not full and more requests make them fuller.

    A server that is asked for one batch at a time waits for the next one while it is being sent,
    so the search begins with two of them for each instance.

    Args:
        max_batch: of one instance; ``instances``: that run at a time.
    """

    def __init__(self, *, max_batch: int, instances: int) -> None:
        self._max_batch = max_batch
        self._step = max(1, max_batch // 2)
        self.limit = 2 * max_batch * instances
        self._least = self._step
        self._most = _MOST_BATCHES * max_batch * instances
        self._mean = 0.0
        self._rests = 0

    def wants_to_know(self, *, reached: bool) -> bool:
        """Whether this look at the server's batches may change the limit.

        Args:
            reached: whether the limit, and not a lack of rows, held requests back.
        """
        if self._rests:
            self._rests -= 1
            self._mean = 0.0
            return False
        return reached

    def observe(self, mean: float) -> int:
        """The limit after batches of so many rows, on average, since the last look."""
        if mean >= _FULL * self._max_batch:
            self._rests = _LOOKS_AFTER_FOUND
        elif mean < self._mean * _GAIN:
            # more requests made the batches no fuller: the last step was one too many
            self.limit = max(self._least, self.limit - self._step)
            self._rests = _LOOKS_AFTER_FOUND
        else:
            self._mean = mean
            self.limit = min(self._most, self.limit + self._step)
        return self.limit

    def refused(self) -> int:
        """The limit after the server took no more requests."""
        self.limit = max(self._least, self.limit * 3 // 4)
        self._rests = _LOOKS_AFTER_REFUSAL
        return self.limit


class BatchHistogram:
    """A server's count of batches by their size, since it began, as a mean since the last look."""

    def __init__(self) -> None:
        self._before: Mapping[int, int] = {}

    def mean_since(self, counts: Mapping[int, int]) -> float | None:
        """None while there was no batch, or when the server has begun to count anew."""
        new = {size: count - self._before.get(size, 0) for size, count in counts.items()}
        self._before = dict(counts)
        batches = sum(new.values())
        if batches <= 0 or min(new.values()) < 0:
            return None
        return sum(size * count for size, count in new.items()) / batches
