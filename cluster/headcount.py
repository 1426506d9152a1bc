"""How many workers a run wants and lacks, as its driver tells the coordinator, which exports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Headcount:
    """``wanted`` workers, of whom ``waiting`` were asked for and wait for a machine to come."""

    wanted: int
    waiting: int
