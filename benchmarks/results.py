"""All that is measured, as records and as one JSON file: what the page is written from.

Imports nothing that measures. Parts that were not run are empty.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was asked. ``batch``: slots, and the most rows of one call, in every way."""

    rows: int
    turns: int
    batch: int
    model: str
    same_malloc: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way on one workload in one turn. ``difference``: the largest of any channel to what the
    first way of that turn made, of 255."""

    way: str
    workload: str
    turn: int
    images: int
    whole_s: float
    steady_per_second: float
    denoiser_share: float
    fill: float
    difference: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The engine beside the bare denoiser in one turn, in rows of forward passes a second: an image
    with guidance has two in every step. ``bare_per_second`` is by batch size; ``fill`` is that of
    mixed rows of one shape."""

    precision: str
    turn: int
    bare_per_second: Mapping[str, float]
    uniform_per_second: float
    one_shape_per_second: float
    uniform_denoiser_share: float
    one_shape_denoiser_share: float
    fill: float

    @property
    def best_bare(self) -> float:
        """At the best batch size."""
        return max(self.bare_per_second.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A worker with a store of 200 ms a put in one turn, images a second. ``worker``: from the
    first call of the denoiser to the last image's byte; ``whole``: to the last record, with the
    opening, committing and sealing of all shards; ``loop``: the engine alone."""

    turn: int
    images: int
    loop_per_second: float
    worker_per_second: float
    whole_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """``fill``: occupied slots of all offered ones, each weighted with the time of its step."""

    way: str
    rows: int
    batch: int
    images_per_second: float
    fill: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Memory of one worker's process that made a whole job."""

    engine: str
    rows: int
    peak_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One whole job to S3, in process or through a tritonserver, in one turn.

    ``flowing_s``: from the first image's start to the last one's end. ``step_rows``: rows that
    shared a step of the denoiser, on average. ``batches``: how many of each size the server
    executed. ``difference``: the largest of any channel to the first way of that turn, of 255.
    """

    way: str
    turn: int
    images: int
    whole_s: float
    flowing_s: float
    step_rows: float
    batches: Mapping[str, int]
    difference: int

    @property
    def mean_batch(self) -> float | None:
        """Of the batches that the server executed; None where there was no server."""
        executed = sum(self.batches.values())
        rows = sum(int(size) * count for size, count in self.batches.items())
        return rows / executed if executed else None


@dataclass(slots=True, kw_only=True)
class Results:
    """One run of the benchmark; ``command`` repeats it; ``took_s`` and ``load_average``, when it
    began, are by part."""

    written_at: str
    command: str
    took_s: dict[str, float]
    load_average: dict[str, float]
    machine: Mapping[str, Any]
    settings: Settings
    runs: list[Run] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    simulated: list[Simulated] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As indented JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What ``write`` wrote."""
        plain = json.loads(path.read_text())
        parts = {
            "runs": Run,
            "shares": Share,
            "overlaps": Overlap,
            "simulated": Simulated,
            "peaks": Peak,
            "served": Served,
        }
        read = {name: [kind(**one) for one in plain.get(name, ())] for name, kind in parts.items()}
        return cls(**{**plain, **read, "settings": Settings(**plain["settings"])})
