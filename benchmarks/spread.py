"""Least, median and most of what several turns gave, and the ratios between ways.

Pure. A ratio is taken within each turn, since a machine is not the same from one to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of at least one number."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Self:
        """The spread of some numbers.

        Raises:
            ValueError: there are none.
        """
        if not numbers:
            raise ValueError("no numbers to take the spread of; expected at least one turn")
        return cls(least=min(numbers), median=statistics.median(numbers), most=max(numbers))

    def text(self, digits: int = 2) -> str:
        """``median (least–most)``; without turns that differ the median alone."""
        if self.least == self.most:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}–{self.most:.{digits}f})"

    def percent(self) -> str:
        """The same of shares, in percent."""
        low, middle, high = (f"{100 * n:.0f}" for n in (self.least, self.median, self.most))
        return f"{middle} %" if low == high else f"{middle} ({low}–{high}) %"


def ratios(above: Mapping[int, float], below: Mapping[int, float]) -> Spread:
    """How many times ``above`` is ``below``, turn by turn; both by turn.

    Raises:
        ValueError: they have no turn in common.
    """
    return Spread.of([above[turn] / below[turn] for turn in sorted(above.keys() & below.keys())])
