"""The pilot: a few rows of a job through its own engine, on this machine. Writes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

from conf.errors import ConfigError
from conf.schema import OutputConfig
from jobs import rates
from jobs.quote.estimate import Group, Size
from jobs.quote.strata import Strata, Stratum, rows_to_try
from operators.encode import encode_image
from operators.engine import Engine, ImageFailure, ImageResult
from operators.request import Request

_ROUNDS = 6
"""Batches of each size that are measured: five degrees of freedom."""
_MOST_SIZES = 8
_FIRST_SLOTS = 4
_MOST_SHARE = 0.25
"""No more than so much of a size's images is tried: of a small job the job itself tells more."""


@dataclass(slots=True, kw_only=True)
class _Seen:
    """Images of one size so far: ``done`` at the present number of slots, ``before`` at others, as
    an engine that is looking for the best number of slots goes through several."""

    slots: int
    done: list[Group] = field(default_factory=list)
    before: list[Group] = field(default_factory=list)
    lost: int = 0

    def resize(self, slots: int) -> None:
        if slots != self.slots:
            self.slots = slots
            self.before += self.done
            self.done = []

    def enough(self, most: int) -> bool:
        """Whether so many batches are done, or ``most`` images were tried."""
        tried = len(self.before) + len(self.done) + self.lost
        return len(self.done) >= _ROUNDS * self.slots or tried >= most

    @property
    def best(self) -> list[Group]:
        """Those of one number of slots where there are two of them."""
        return self.done if len(self.done) >= 2 else self.before + self.done


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What was measured. ``load_s``: making the engine and a first tick of each size; ``stretch``:
    wall-clock seconds for one of the device; ``bytes_per_pixel`` of the encoded images; ``failed``
    rows could not be made, ``problem`` is the first one's. ``devices`` made them at a time."""

    sizes: tuple[Size, ...]
    load_s: float
    stretch: float
    bytes_per_pixel: float
    tried: int
    failed: int
    problem: str
    devices: int = 1


def run_pilot(
    strata: Strata,
    make_engine: Callable[[], Engine],
    output: OutputConfig,
    *,
    limit_s: float,
    random: Random,
    clock: Callable[[], float] = time.monotonic,
    through_servers: bool = False,
) -> Pilot:
    """Try the sizes with the most work, six batches each, for about ``limit_s`` seconds in all.

    Args:
        through_servers: they form the batches, as full as they may be from the start, and several
            at a time.

    Raises:
        ConfigError: no image was finished.
    """
    began_s = clock()
    engine = make_engine()
    run = _Run(
        engine=engine, output=output, clock=clock, random=random, through_servers=through_servers
    )
    run.load_s = clock() - began_s
    order = strata.sizes()
    until_s = clock()
    whole = sum(stock.pixel_steps for stock in strata.stocks.values())
    sizes = []
    for place, size in enumerate(order):
        found = strata.of_size(size)
        work = sum(stock.pixel_steps for stock in found.values())
        until_s += limit_s * work / whole
        blank = Size(
            images=sum(stock.images for stock in found.values()),
            pixel_steps=work,
            slots=0,
            groups=(),
        )
        sizes.append(run.measure(blank, strata, size, until_s) if place < _MOST_SIZES else blank)
    if not any(size.groups for size in sizes):
        raise ConfigError(_nothing_made(run, limit_s))
    return Pilot(
        sizes=tuple(sizes),
        load_s=run.load_s,
        stretch=max(1 / engine.info.devices, run.wall_s / run.device_s) if run.device_s else 1.0,
        bytes_per_pixel=run.encoded / run.pixels,
        tried=run.tried,
        failed=run.failed,
        problem=run.problem,
        devices=engine.info.devices,
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    engine: Engine
    output: OutputConfig
    clock: Callable[[], float]
    random: Random
    through_servers: bool
    load_s: float = 0.0
    wall_s: float = 0.0
    device_s: float = 0.0
    encoded: int = 0
    pixels: int = 0
    tried: int = 0
    failed: int = 0
    problem: str = ""
    _strata: dict[str, Stratum] = field(default_factory=dict)

    def measure(self, blank: Size, strata: Strata, size: tuple[int, int], until_s: float) -> Size:
        """One size: a first tick that warms up, then batches kept full until enough are done."""
        at_once = min(self.engine.info.max_batch, 8)
        rows = rows_to_try(strata.of_size(size), at_once=at_once, random=self.random)
        self._warm_up(rows)
        began_s, busy_ns = self.clock(), self.engine.stats.busy_ns
        seen = _Seen(slots=self._first_slots())
        results: list[ImageResult] = []
        admitted, most = 0, min(blank.images, max(2, math.ceil(blank.images * _MOST_SHARE)))
        while not seen.enough(most) and self.clock() < until_s:
            stats = self.engine.stats
            free = min(2 * seen.slots - stats.active - stats.waiting, blank.images - admitted)
            self._admit(rows, free)
            admitted += max(0, free)
            for one in self.engine.tick(more_to_come=True):
                if isinstance(one, ImageFailure):
                    seen.lost += 1
                    self._fail(one)
                else:
                    results.append(one)
                    seen.done.append(self._group(one))
            stats = self.engine.stats
            if stats.waiting and stats.active and not self.through_servers:
                seen.resize(stats.active)
        self.engine.finish()  # all device time is in the stats then
        self.wall_s += self.clock() - began_s
        self.device_s += (self.engine.stats.busy_ns - busy_ns) / 1e9
        self.engine.discard(lambda _: True)
        self._weigh(results)
        slots = min(seen.slots, blank.images)
        return replace(blank, slots=slots, groups=_groups(seen.best, slots), tried=len(results))

    def _first_slots(self) -> int:
        info = self.engine.info
        if self.through_servers:
            return info.max_batch * info.devices
        return min(_FIRST_SLOTS, info.max_batch)

    def _warm_up(self, rows: Iterator[tuple[Stratum, Request]]) -> None:
        began_s = self.clock()
        self._admit(rows, 1)
        self.engine.tick(more_to_come=True)
        self.engine.finish()
        self.engine.discard(lambda _: True)
        self.load_s += self.clock() - began_s

    def _admit(self, rows: Iterator[tuple[Stratum, Request]], count: int) -> None:
        for _ in range(count):
            stratum, request = next(rows)
            self._strata[request.image_id] = stratum
            self.engine.admit([request])

    def _group(self, result: ImageResult) -> Group:
        stratum = self._strata[result.request.image_id]
        weight = rates.weighted_steps(
            sampler=stratum.sampler, steps=stratum.steps, passes=stratum.passes
        )
        pixels = stratum.width * stratum.height
        return Group(seconds=result.device_ns / 1e9, pixel_steps=weight * pixels)

    def _fail(self, failure: ImageFailure) -> None:
        self.failed += 1
        self.tried += 1
        self.problem = self.problem or failure.message

    def _weigh(self, results: list[ImageResult]) -> None:
        """How large the files are; beside the time that is measured."""
        for result in results:
            data = encode_image(
                result.pixels,
                image_format=self.output.image,
                quality=self.output.quality,
                parameters={"prompt": result.request.prompt} if self.output.embed_prompt else None,
            ).data
            self.encoded += len(data)
            self.pixels += result.request.width * result.request.height
            self.tried += 1


def _groups(done: list[Group], slots: int) -> tuple[Group, ...]:
    """Images in the order in which they were finished, a batch's worth to a group; two groups at
    least where there are two images."""
    if not done:
        return ()
    many = max(1, min(len(done), max(2, len(done) // max(1, slots))))
    cuts = [len(done) * place // many for place in range(many + 1)]
    return tuple(
        Group(
            seconds=sum(one.seconds for one in done[first:last]),
            pixel_steps=sum(one.pixel_steps for one in done[first:last]),
        )
        for first, last in pairwise(cuts)
    )


def _nothing_made(run: _Run, limit_s: float) -> str:
    if run.failed:
        return (
            f"none of {run.failed} rows that the pilot tried became an image; the first: "
            f"{run.problem}"
        )
    return (
        f"the pilot finished no image in {limit_s:g} s; give it longer with --pilot-seconds, or "
        "take the rates of earlier runs with --remembered"
    )
