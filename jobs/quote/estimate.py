"""The arithmetic of a quote: measured groups of images in, a time with its 90 % interval out. Pure.

A size (width x height) is measured by groups of images that finished one after another, about a
batch each, as batch means are in simulation: images of one batch share its ticks, so only groups
are independent. Seconds of a job = sum over sizes of pixel-steps x mean seconds of a pixel-step.
Variances of the sizes and of the drift between runs add up, with Satterthwaite's degrees of
freedom. Knows nothing of engines, files or money.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

CONFIDENCE = 0.90
_Z = 1.6448536269514722
"""The normal quantile of 95 %: two sides of it leave out 10 %."""
_TWO = 2
_WIDE = 0.2
_MIX = (0.03**2, 30.0)
"""Relative variance, with its degrees of freedom, for batches of a job that mix guidance and steps
otherwise than those of the pilot: found by simulating jobs (tests/unit/test_quote_coverage.py)."""
_RUNS_DIFFER = (0.1**2, 1.0)
"""What is held of how runs differ before it is known: by 10 %, as firmly as one run more would say
it. An assumption, without which two runs alone, 20 % apart, would tell of any time at all."""
_LOAD_SPREAD = 0.2
"""Relative standard deviation of starting up, which is measured once only: an assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and its 90 % interval; without ``low`` and ``high`` the spread is not known."""

    middle: float
    low: float | None
    high: float | None

    @classmethod
    def around(cls, middle: float, relative: float | None) -> Interval:
        """From ``middle`` / e^relative to ``middle`` x e^relative: never below zero."""
        if relative is None:
            return cls(middle=middle, low=None, high=None)
        return cls(
            middle=middle, low=middle * math.exp(-relative), high=middle * math.exp(relative)
        )

    def times(self, factor: float, plus: float = 0.0) -> Interval:
        """Scaled by a ``factor`` > 0 and moved by what is certain."""
        low, high = (None if end is None else end * factor + plus for end in (self.low, self.high))
        return Interval(middle=self.middle * factor + plus, low=low, high=high)

    def holds(self, value: float) -> bool | None:
        """Whether a value lies inside; None where the spread is not known."""
        if self.low is None or self.high is None:
            return None
        return self.low <= value <= self.high

    def in_words(self) -> str:
        """The half width in percent, or both sides where they differ or are wide."""
        if self.low is None or self.high is None or not self.middle:
            return "(spread not known)"
        below, above = 1 - self.low / self.middle, self.high / self.middle - 1
        if above >= _WIDE:
            return f"(- {100 * below:.0f} %, + {100 * above:.0f} %)"
        return f"+- {max(1, round(50 * (below + above)))} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images measured together: their device seconds and pixel-steps."""

    seconds: float
    pixel_steps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """All images of one size: what the job asks, and what was measured of it.

    ``slots`` images share a tick; 0 and no ``groups`` where nothing was measured.
    """

    images: int
    pixel_steps: float
    slots: int
    groups: tuple[Group, ...]
    tried: int = 0

    @property
    def rate(self) -> float:
        """Mean seconds of a pixel-step."""
        return sum(g.seconds for g in self.groups) / sum(g.pixel_steps for g in self.groups)

    @property
    def spread(self) -> float | None:
        """Variance of a group's seconds per pixel-step; None of less than two groups."""
        rates = [group.seconds / group.pixel_steps for group in self.groups]
        return variance(rates) if len(rates) >= _TWO else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Device seconds of the whole job on one measured device.

    ``variance`` is relative (of the logarithm) with ``freedom`` degrees; None: not known.
    ``untried`` is the share of the pixel-steps whose sizes were not measured.
    """

    seconds: float
    variance: float | None
    freedom: float
    untried: float = 0.0

    @property
    def relative(self) -> float | None:
        """Half the width of the 90 % interval, relative."""
        if self.variance is None:
            return None
        return student_95(self.freedom) * math.sqrt(self.variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who works: ``load_s`` passes before a worker's first image, ``stretch`` is wall-clock time
    for a second of the device, ``shards`` are what the workers share the job by."""

    workers: int
    shards: int
    load_s: float
    stretch: float = 1.0


def by_pilot(sizes: Sequence[Size], earlier: Sequence[float] = ()) -> Work | None:
    """The job's device seconds by what a pilot measured; None where it measured nothing.

    Sizes that were not tried count at the mean rate of the others.

    Args:
        earlier: rates of earlier runs of the same, in pixel-steps a second: the pilot and the job
            are two more runs, each as far off as those are from each other.
    """
    tried = [size for size in sizes if size.groups]
    whole = sum(size.pixel_steps for size in sizes)
    measured = sum(size.pixel_steps for size in tried)
    if not measured:
        return None
    seconds = sum(size.pixel_steps * size.rate for size in tried)
    parts = [_MIX, *(_part(size, seconds) for size in tried)]
    drift = _drift(earlier)
    if drift is not None:
        parts.append(drift)
    untried = 1 - measured / whole
    if untried > 0:
        parts.append(_between(tried, untried))
    known = [part for part in parts if part is not None]
    total = sum(part for part, _ in known)
    return Work(
        seconds=seconds * whole / measured,
        variance=total if len(known) == len(parts) else None,
        freedom=_satterthwaite(known),
        untried=max(0.0, untried),
    )


def by_rates(pixel_steps: float, earlier: Sequence[float]) -> Work | None:
    """The job's device seconds by the rates of earlier runs, in pixel-steps a second."""
    if not earlier:
        return None
    rate = math.exp(fmean(math.log(one) for one in earlier))
    spread = _spread_of_runs(earlier)
    return Work(
        seconds=pixel_steps / rate,
        variance=spread[0] * (1 + 1 / len(earlier)) if spread else None,
        freedom=spread[1] if spread else 1.0,
    )


def worker_seconds(
    work: Work, crew: Crew, sizes: Sequence[Size] = (), *, speed: float = 1.0
) -> Interval:
    """How long each of the workers lives, until the last one ends: what is paid for.

    Workers that find no more shards wait for the last one, up to two shards' time; batches that the
    last images of a size do not fill take up to a full batch's time.

    Args:
        speed: how many times faster than the measured device theirs are.
    """
    device_s = work.seconds * crew.stretch / speed
    busy_s = device_s / crew.workers
    wait_s = _wait(device_s, crew)
    unfilled_s = [_unfilled(size, crew) / speed for size in sizes]
    spans = [wait_s, *unfilled_s]
    # most waits are far from the longest; a batch that is not full costs less than a full one
    middle = crew.load_s + busy_s + wait_s / 4 + sum(unfilled_s) / 4
    if work.relative is None or not middle:
        return Interval.around(middle, None)
    # each of the spans is anything from nothing to all of it
    ends = _Z * math.sqrt(sum(span**2 for span in spans) / 12 + (_LOAD_SPREAD * crew.load_s) ** 2)
    return Interval.around(middle, math.hypot(work.relative * busy_s, ends) / middle)


def student_95(freedom: float) -> float:
    """The 95 % quantile of Student's t: exact for 1 and 2 degrees of freedom, from 3 on by the
    Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5) to 0.1 %."""
    if freedom < 3:
        return 6.313752 if freedom < _TWO else 2.919986
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _part(size: Size, seconds: float) -> tuple[float, float] | None:
    """A size's part of the relative variance and its degrees of freedom: of the pilot's mean, and
    of the job's own batches."""
    spread = size.spread
    if spread is None:
        return None
    batches = max(1.0, size.images / max(1, size.slots))
    own = size.pixel_steps**2 * spread * (1 / len(size.groups) + 1 / batches)
    return own / seconds**2, len(size.groups) - 1


def _drift(earlier: Sequence[float]) -> tuple[float, float] | None:
    """Of the pilot and of the job: two runs more, each as far off as the earlier ones."""
    spread = _spread_of_runs(earlier)
    return (2 * spread[0], spread[1]) if spread else None


def _spread_of_runs(earlier: Sequence[float]) -> tuple[float, float] | None:
    """The relative variance of the rates of runs and its degrees of freedom; None of fewer than
    two. A variance that few runs tell is pulled to what is held of it before."""
    if len(earlier) < _TWO:
        return None
    before, weight = _RUNS_DIFFER
    own = len(earlier) - 1
    found = own * variance([math.log(one) for one in earlier])
    return (found + weight * before) / (own + weight), own + weight


def _between(tried: Sequence[Size], untried: float) -> tuple[float, float] | None:
    """What sizes that were not tried may differ by: as those that were tried do."""
    if len(tried) < _TWO:
        return None
    return untried**2 * variance([math.log(size.rate) for size in tried]), len(tried) - 1


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    total = sum(part for part, _ in parts)
    below = sum(part**2 / freedom for part, freedom in parts)
    return total**2 / below if below else 1.0


def _wait(device_s: float, crew: Crew) -> float:
    """At most how long the first worker to end waits for the last: each holds up to two shards."""
    return 0.0 if crew.workers == 1 else 2 * device_s / max(1, crew.shards)


def _unfilled(size: Size, crew: Crew) -> float:
    """At most what the unfilled last batch of each worker takes more than its images' share."""
    if not size.groups or size.images <= size.tried:
        return 0.0
    batch_s = size.rate * size.pixel_steps / max(1, size.images) * size.slots
    if crew.workers == 1:
        batches = size.images / size.slots
        return batch_s * (math.ceil(batches) - batches) * crew.stretch
    return batch_s * crew.stretch
