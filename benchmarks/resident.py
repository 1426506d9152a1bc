"""An engine of ImageMill, loaded and warm, in a process of its own that is asked again and again.

What is measured here is the steady state: start-up is over. The process uses all CPU threads and
sleeps between the questions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any, Self

import torch

from benchmarks.environment import as_environment, our_environment
from benchmarks.one_worker import plan_job, work_on
from benchmarks.slow_store import SlowStore
from benchmarks.ways.imagemill import settings
from benchmarks.ways.task import Task
from benchmarks.workloads import Row, passes, read_rows, requests_of
from cluster.store import Store
from jobs.maker import settle
from jobs.run import prepare
from operators.engine import EngineStats, ImageResult
from operators.engines import load_engine
from operators.families.family import Family

BARE_S = 2.0
"""How long the bare denoiser is measured at one batch size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What ``images`` took. ``seconds`` end with the last image (its last byte, where it is
    written), ``whole_s`` with the last record, ``opening_s`` with the denoiser's first call.

    ``rows`` are rows of forward passes: an image with guidance has two in every step.
    """

    images: int
    seconds: float
    whole_s: float
    opening_s: float
    denoiser_s: float
    rows: int
    occupied: int
    offered: int

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    @property
    def flowing_per_second(self) -> float:
        """Images a second from the first call of the denoiser on."""
        return self.images / (self.seconds - self.opening_s)

    @property
    def fill(self) -> float:
        return self.occupied / self.offered


class Resident:
    """A process with one engine; every method answers when its work is done.

    Args:
        task: precision, batch and model; its rows are made once, to warm up.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        with as_environment(our_environment()):
            started = self._pool.submit(_loop, task, read_rows(task.rows))
        started.result()

    def worker(self, task: Task, *, slow: bool = False) -> Figures:
        """A worker makes the task's rows: reads Parquet, writes images and commits.

        Args:
            slow: every put takes ``SlowStore.put_s`` longer.
        """
        return self._pool.submit(_worker, self._task, task, slow).result()

    def loop(self, rows: Sequence[Row]) -> Figures:
        """The engine alone makes the rows; nothing is read or written."""
        return self._pool.submit(_loop, self._task, rows).result()

    def bare(self, batch: int, side: int = 64) -> float:
        """Rows a second through the bare denoiser, with so many at once."""
        return self._pool.submit(_bare, self._task, batch, side).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()


class DenoiserClock:
    """Takes the place of ``predict`` in a family and adds up the time in it."""

    def __init__(self, family: Any) -> None:
        self._predict = family.predict
        self._wait = torch.cuda.synchronize if family.device.type == "cuda" else None
        self.seconds = 0.0
        self.first_s: float | None = None
        family.predict = self

    def __call__(self, *arguments: Any) -> torch.Tensor:
        started_s = time.perf_counter()
        if self.first_s is None:
            self.first_s = time.time()
        made: torch.Tensor = self._predict(*arguments)
        if self._wait is not None:
            self._wait()
        self.seconds += time.perf_counter() - started_s
        return made


@cache
def _engine(task: Task) -> Any:
    """The stepwise engine of this process, with a clock in its denoiser."""
    config = settle(prepare(settings(task))).config
    engine: Any = load_engine(config.engine, config.model)
    DenoiserClock(engine._family)
    return engine


def _worker(first: Task, task: Task, slow: bool) -> Figures:
    engine = _engine(first)
    job = plan_job(settings(task))
    store = (SlowStore if slow else Store).of(job.config)
    meter = _Meter(engine)
    began_s = time.time()
    work_on(job, lambda: engine, store)
    ended_s = time.time()
    images = list((task.output / "images").rglob("*.png"))
    last_s = max(image.stat().st_mtime for image in images)
    return meter.figures(read_rows(task.rows), last_s - began_s, ended_s - began_s, len(images))


def _loop(first: Task, rows: Sequence[Row]) -> Figures:
    engine = _engine(first)
    waiting, made = requests_of(rows), 0
    meter = _Meter(engine)
    began_s = time.perf_counter()
    while waiting or engine.busy:
        room = engine.room
        engine.admit(waiting[:room])
        del waiting[:room]
        made += sum(isinstance(outcome, ImageResult) for outcome in engine.tick())
    spent_s = time.perf_counter() - began_s
    return meter.figures(rows, spent_s, spent_s, made)


class _Meter:
    """The engine's counters since now."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._stats: EngineStats = engine.stats
        self._clock: DenoiserClock = engine._family.predict
        self._clock.first_s = None
        self._denoiser_s = self._clock.seconds
        self._began_s = time.time()

    def figures(self, rows: Sequence[Row], seconds: float, whole_s: float, images: int) -> Figures:
        if images != len(rows):
            raise RuntimeError(f"{images} images of {len(rows)} rows; expected one of each")
        stats: EngineStats = self._engine.stats
        assert self._clock.first_s is not None
        return Figures(
            images=images,
            seconds=seconds,
            whole_s=whole_s,
            opening_s=self._clock.first_s - self._began_s,
            denoiser_s=self._clock.seconds - self._denoiser_s,
            rows=sum(passes(row) * row["steps"] for row in rows),
            occupied=stats.occupied - self._stats.occupied,
            offered=stats.offered - self._stats.offered,
        )


@torch.inference_mode()
def _bare(first: Task, batch: int, side: int) -> float:
    family: Family = _engine(first)._family
    latents = torch.randn(batch, *family.latent_shape(side, side), device=family.device)
    timesteps = torch.linspace(1, 999, batch, device=family.device)
    conditioning = family.embed(["a red circle"] * batch)
    calls, began_s = -2, 0.0
    while calls < 1 or time.perf_counter() - began_s < BARE_S:
        if calls == 0:
            began_s = time.perf_counter()
        family.predict(latents, timesteps, conditioning, (side, side))
        calls += 1
    return calls * batch / (time.perf_counter() - began_s)
