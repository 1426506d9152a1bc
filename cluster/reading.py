"""What a worker's totals are at a beat, for whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.coordinator import WorkerProgress
from cluster.traffic import Effort, Requests
from operators.engine import EngineStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Running totals. ``queues``: how many wait, by the queue's name; ``stats``: None while there is
    no engine."""

    progress: WorkerProgress
    stats: EngineStats | None
    requests: Requests
    effort: Effort
    queues: Mapping[str, int]


def nobody_watches(reading: Reading) -> None:
    """For workers whose readings nobody wants."""
