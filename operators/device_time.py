"""Who used the device for how long: whole nanoseconds, split exactly.

Pure apart from the clock, which is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


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


class DeviceMeter:
    """A lap clock that charges every lap to those who took part in it.

    Invariant: ``busy_ns`` equals the sum of all that was ever added to anyone's ``device_ns``.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._since = 0
        self.busy_ns = 0

    def start(self) -> None:
        """Begin the first lap; what came before it is nobody's."""
        self._since = self._clock_ns()

    def lap(self, took_part: Sequence[tuple[Charged, int]]) -> None:
        """End a lap and charge it by weight; without participants it goes on into the next lap."""
        if not took_part:
            return
        now = self._clock_ns()
        spent, self._since = now - self._since, now
        shares = split_exactly(spent, [weight for _, weight in took_part])
        for (who, _), share in zip(took_part, shares, strict=True):
            who.device_ns += share
        self.busy_ns += spent
