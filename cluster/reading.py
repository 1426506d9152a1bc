"""What a worker's totals are at a beat, for whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.coordinator import WorkerProgress
from cluster.traffic import Requests
from operators.engine import EngineStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Running totals. ``stats``: None while there is no engine; ``retries``: tries of the store
    that failed and were made again; ``queues``: how many wait, by the queue's name."""

    progress: WorkerProgress
    stats: EngineStats | None
    requests: Requests
    retries: int
    queues: Mapping[str, int]


def nobody_watches(reading: Reading) -> None:
    """For workers whose readings nobody wants."""
