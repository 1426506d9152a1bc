"""Workers lost in a row without progress: when to hire the next, and when to give up. Pure."""

from __future__ import annotations

from enum import StrEnum

_CRASHES = 16
"""A row that kills its worker is found by halving a shard of up to 4,096 rows: 13 crashes."""
_FEWEST_STOPS = 4
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_LONGEST_AFTER_CRASH_S = 1.0


class Loss(StrEnum):
    """How a worker was lost: its process died, its engine hung, it gave no sign of life, or it
    stopped since the store or the coordinator could not be reached."""

    DIED = "died"
    HUNG = "hung"
    SILENT = "silent"
    STOPPED = "stopped"

    @property
    def crashed(self) -> bool:
        """Whether a row may have done it."""
        return self is not Loss.STOPPED


class Setbacks:
    """Counts losses since the last progress. A crash may be a row's doing, and finding that row
    takes many; a worker that stopped for a store that does not answer says nothing of rows, but
    the next one will find the same store: the pauses grow.

    Args:
        crew: how many workers there are to be, at least 1.
        max_attempts: failures after which a shard's unfinished rows are given up.
    """

    def __init__(self, *, crew: int, max_attempts: int) -> None:
        self._bearable_crashes = crew * (_CRASHES + 4 * max_attempts)
        self._bearable_stops = crew - 1 + max(_FEWEST_STOPS, 4 * max_attempts)
        self._progress = 0
        self._crashes = 0
        self._stops = 0
        self._hired = 0
        self._hire_at_s = 0.0

    def progress(self, done: int) -> None:
        """``done`` is a count that never goes back; a higher one than before ends the row."""
        if done > self._progress:
            self._progress = done
            self._crashes = self._stops = self._hired = 0

    def lost(self, *, crashed: bool) -> None:
        """One worker more was lost."""
        if crashed:
            self._crashes += 1
        else:
            self._stops += 1

    @property
    def in_a_row(self) -> int:
        """Losses since the last progress."""
        return self._crashes + self._stops

    @property
    def hopeless(self) -> bool:
        """Whether to give up."""
        return self._crashes > self._bearable_crashes or self._stops > self._bearable_stops

    @property
    def hire_at_s(self) -> float:
        """When somebody may be hired; has no meaning while nothing was lost in a row."""
        return self._hire_at_s

    def may_hire(self, now_s: float, wanted: int) -> int:
        """How many of ``wanted`` may be hired now: after a loss one, then one a pause."""
        if not self.in_a_row:
            return wanted
        return min(wanted, 1) if not self._hired or now_s >= self._hire_at_s else 0

    def hired(self, now_s: float) -> None:
        """Somebody was hired; after a loss the next one waits."""
        if self.in_a_row:
            longest_s = _LONGEST_PAUSE_S if self._stops else _LONGEST_AFTER_CRASH_S
            self._hire_at_s = now_s + min(longest_s, _FIRST_PAUSE_S * 2**self._hired)
            self._hired += 1
