"""Who used the device for how long: whole nanoseconds, split exactly.

A GPU works behind the host's back, so its laps are measured by marks in its own queue and read once
it has passed them; the host never waits for the work that it has just given out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


def split_exactly(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to ``weights`` by largest remainder; the parts sum to it.

    Raises:
        ValueError: there is nothing to split over.
    """
    whole = sum(weights)
    if whole <= 0:
        raise ValueError(f"cannot split {total} over the weights {list(weights)}")
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(
        range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place)
    )
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


class Charged(Protocol):
    """Something that took part in device work and carries its share."""

    device_ns: int


class Clock(Protocol):
    """Marks points in a device's work. ``behind``: how many laps may stay unread."""

    behind: int

    def mark(self) -> Any:
        """The point behind all work that was given out so far."""

    def passed(self, mark: Any) -> bool:
        """Whether the device is there already."""

    def between_ns(self, start: Any, end: Any) -> int:
        """Nanoseconds from one mark to a later one; waits until the device has passed it."""


class HostClock:
    """The clock of work that is done when its call returns."""

    behind = 0

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now_ns = now_ns

    def mark(self) -> int:
        return self._now_ns()

    def passed(self, mark: int) -> bool:
        return True

    def between_ns(self, start: int, end: int) -> int:
        return end - start


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lap:
    start: Any
    end: Any
    took_part: Sequence[tuple[Charged, int]]
    note: Callable[[int], None] | None


class DeviceMeter:
    """A lap clock that charges every lap to those who took part in it.

    Invariant: ``busy_ns`` equals the sum of all that was ever added to anyone's ``device_ns``.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: Any = None
        self._open: deque[_Lap] = deque()
        self.busy_ns = 0

    def start(self) -> None:
        """Begin the first lap; what came before it is nobody's."""
        self._since = self._clock.mark()

    def lap(
        self,
        took_part: Sequence[tuple[Charged, int]],
        *,
        note: Callable[[int], None] | None = None,
    ) -> None:
        """End a lap and charge it by weight; without participants it goes on into the next lap.

        ``note`` hears how many nanoseconds it took, once that is known.
        """
        if not took_part:
            return
        start, self._since = self._since, self._clock.mark()
        self._open.append(_Lap(start=start, end=self._since, took_part=took_part, note=note))
        while len(self._open) > self._clock.behind:
            self._charge(self._open.popleft())

    def settle(self) -> None:
        """Charge all laps, waiting for the device."""
        while self._open:
            self._charge(self._open.popleft())

    def settle_passed(self) -> None:
        """Charge the laps that the device has behind it."""
        while self._open and self._clock.passed(self._open[0].end):
            self._charge(self._open.popleft())

    def _charge(self, lap: _Lap) -> None:
        spent = self._clock.between_ns(lap.start, lap.end)
        shares = split_exactly(spent, [weight for _, weight in lap.took_part])
        for (who, _), share in zip(lap.took_part, shares, strict=True):
            who.device_ns += share
        self.busy_ns += spent
        if lap.note is not None:
            lap.note(spent)
