"""What ImageMill is to reach, and whether it did: pure arithmetic over the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Overlap, Results, Run, Served, Share
from benchmarks.spread import Spread, ratios

MET, UNMET = "met", "**not met**"
TRITON_BATCH = 8
"""Slots in process and the batch of the exported model, where both are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """``found`` is a ratio, None where it was not measured; met when its median is ``least``."""

    text: str
    least: float
    found: Spread | None

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.found is None:
            return "not measured"
        return MET if self.found.median >= self.least else UNMET


def steady_rate(run: Run) -> float:
    """Images a second without start-up."""
    return run.steady_per_second


def whole_rate(run: Run) -> float:
    """Images a second from the start of the program to the last byte."""
    return run.images / run.whole_s


def goals(results: Results) -> list[Goal]:
    """All goals, in the order of the page."""
    mixed, uniform = "mixed", "uniform"
    asked: list[tuple[str, float, Spread | None]] = [
        (
            "mixed rows, steady state: exact to Ray Data",
            1.5,
            speedup(results, mixed, "exact", "ray", steady_rate),
        ),
        (
            "mixed rows, whole run: exact to Ray Data",
            2.0,
            speedup(results, mixed, "exact", "ray", whole_rate),
        ),
        (
            "mixed rows, steady state: fast to Ray Data",
            3.5,
            speedup(results, mixed, "fast", "ray", steady_rate),
        ),
        (
            "mixed rows, steady state: exact to diffusers with all rows sorted",
            1.0,
            speedup(results, mixed, "exact", "sorted", steady_rate),
        ),
        (
            "uniform rows, steady state: exact to Ray Data",
            1.1,
            speedup(results, uniform, "exact", "ray", steady_rate),
        ),
        (
            "uniform rows, whole run: exact to Ray Data",
            1.4,
            speedup(results, uniform, "exact", "ray", whole_rate),
        ),
        (
            "uniform rows, steady state: fast to Ray Data",
            2.3,
            speedup(results, uniform, "fast", "ray", steady_rate),
        ),
        (
            "exact engine to the bare denoiser at its best batch",
            0.95,
            of_turns(results.shares, "float32", bare_share),
        ),
        (
            "fast engine to the bare denoiser at its best batch",
            0.95,
            of_turns(results.shares, "bfloat16", bare_share),
        ),
        (
            "batch fill on mixed rows of one shape",
            0.95,
            of_turns(results.shares, "float32", lambda share: share.fill),
        ),
        ("a store of 200 ms a put to the engine alone", 0.95, overlap(results.overlaps)),
        (
            f"mixed rows through Triton, dynamic: batches that it executed, of {TRITON_BATCH}",
            0.75,
            served(results, "dynamic", lambda one: (one.mean_batch or 0) / TRITON_BATCH),
        ),
    ]
    return [Goal(text=text, least=least, found=found) for text, least, found in asked]


def by_turn(
    results: Results, workload: str, way: str, measure: Callable[[Run], float]
) -> dict[int, float]:
    """What a way reached on a workload in each turn; empty where it was not run."""
    return {
        run.turn: measure(run) for run in results.runs if (run.way, run.workload) == (way, workload)
    }


def spread(
    results: Results, workload: str, way: str, measure: Callable[[Run], float]
) -> Spread | None:
    """Over all turns; None where it was not run."""
    found = by_turn(results, workload, way, measure)
    return Spread.of(list(found.values())) if found else None


def speedup(
    results: Results, workload: str, way: str, other: str, measure: Callable[[Run], float]
) -> Spread | None:
    """How many times faster ``way`` is than ``other``, turn by turn."""
    above = by_turn(results, workload, way, measure)
    below = by_turn(results, workload, other, measure)
    return ratios(above, below) if above.keys() & below.keys() else None


def bare_share(share: Share) -> float:
    """The engine on uniform rows, of the bare denoiser."""
    return share.uniform_per_second / share.best_bare


def of_turns(
    shares: list[Share], precision: str, measure: Callable[[Share], float]
) -> Spread | None:
    """Over the turns of one precision."""
    found = [measure(share) for share in shares if share.precision == precision]
    return Spread.of(found) if found else None


def overlap(
    overlaps: list[Overlap],
    measure: Callable[[Overlap], float] = lambda one: one.worker_per_second,
) -> Spread | None:
    """A worker with a slow store, of the engine alone."""
    found = [measure(one) / one.loop_per_second for one in overlaps]
    return Spread.of(found) if found else None


def served(results: Results, way: str, measure: Callable[[Served], float]) -> Spread | None:
    """Over the turns of one way through Triton, or of that in process."""
    found = [measure(one) for one in results.served if one.way == way]
    return Spread.of(found) if found else None


def served_to(results: Results, way: str, other: str) -> Spread | None:
    """How many times as fast images came through ``way`` as through ``other``, turn by turn."""
    above, below = (
        {one.turn: one.images / one.flowing_s for one in results.served if one.way == name}
        for name in (way, other)
    )
    return ratios(above, below) if above.keys() & below.keys() else None
