"""Which earlier runs a quote goes by: the newest ones that agree with each other. Pure.

A machine that is another one since (a driver, who else is at work on it) shows as a jump between
two runs. What lies before it tells nothing of the next run, and would only widen the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.rates import EarlierRun

ALIKE = 2.0
"""Runs agree where the fastest was at most so many times as fast as the slowest."""
MANY, MANY_ALIKE = 4, 3.0
"""Where there are so many, chance alone drives them further apart: all of them agree up to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """``used`` agree, the newest first; so many older ones are ``left_out``. Of all of them the
    fastest was ``factor`` times as fast as the slowest."""

    used: tuple[EarlierRun, ...]
    left_out: int
    factor: float

    @property
    def rates(self) -> list[float]:
        """Of those that are used, in pixel-steps a second."""
        return [run.rate for run in self.used]

    @property
    def torn(self) -> bool:
        """Whether even the newest two differ, so that nothing tells how runs do."""
        return self.left_out > 0 and len(self.used) == 1

    def elsewhere(self, host: str) -> list[str]:
        """The other hosts on which they were measured."""
        return sorted({run.host for run in self.used} - {host})

    def days(self, now: datetime) -> tuple[int, int]:
        """How many days ago the newest and the oldest of those used were; there must be one."""
        ages = [max(0, (now - run.at).days) for run in self.used]
        return min(ages), max(ages)


def newest_alike(runs: Sequence[EarlierRun]) -> Earlier:
    """Take all runs where they agree, else those, given the newest first, up to the first that
    differs from those taken."""
    rates = [run.rate for run in runs]
    factor = _factor(rates)
    count = len(rates) if len(rates) >= MANY and factor <= MANY_ALIKE else 0
    while count < len(rates) and _factor(rates[: count + 1]) <= ALIKE:
        count += 1
    return Earlier(used=tuple(runs[:count]), left_out=len(runs) - count, factor=factor)


def _factor(rates: Sequence[float]) -> float:
    return max(rates) / min(rates) if rates else 1.0
