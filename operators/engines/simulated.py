"""The engine without a model: waits as long as a calibrated table says and draws a picture.

For the control plane's tests and for planning. Uses the stepwise engine's batcher; says
``simulated`` wherever it is named. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conf.errors import OptionRefused
from conf.schema import EngineConfig, ModelConfig
from operators.batcher import Batcher
from operators.device_time import DeviceMeter, HostClock
from operators.engine import EngineInfo, EngineStats, ImageFailure, ImageResult, Pixels
from operators.fill import FillCount
from operators.guidance import has_two_pass_guidance
from operators.request import Request
from operators.work import Work

CALIBRATED_PIXELS = 64 * 64
"""The size at which ``engine.simulated_seconds`` was measured."""
_DEFAULT_MAX_BATCH = 8


def load(engine: EngineConfig, model: ModelConfig) -> SimulatedEngine:
    """Needs no model folder.

    Raises:
        OptionRefused: there are no times to wait for.
    """
    if engine.simulated_speed > 0 and not engine.simulated_seconds:
        raise OptionRefused(
            "engine.simulated_seconds is empty; expected seconds of a step by batch size. "
            "Use engine=simulated, or measure them with benchmarks/calibrate.py"
        )
    info = EngineInfo(
        name="simulated",
        model=f"simulated:{model.name}",
        model_revision="simulated",
        device="simulated",
        precision="float32" if engine.precision == "auto" else engine.precision,
        max_batch=engine.max_batch or _DEFAULT_MAX_BATCH,
        simulated=True,
    )
    return SimulatedEngine(
        info,
        engine.simulated_seconds,
        speed=engine.simulated_speed,
        two_pass_guidance=has_two_pass_guidance(model),
    )


def step_seconds(measured: Mapping[int, float], batch: float) -> float:
    """Seconds of a step with ``batch`` rows: between two measured sizes a straight line.

    Below the smallest size a step costs as much as that; above the largest it grows in proportion.
    """
    sizes = sorted(measured)
    if batch >= sizes[-1]:
        return measured[sizes[-1]] * batch / sizes[-1]
    return float(np.interp(batch, sizes, [measured[size] for size in sizes]))


def draw_picture(request: Request) -> Pixels:
    """A small scene of flat colours that depends on prompt, seed and size alone."""
    digest = hashlib.sha256(
        f"{request.seed}\0{request.prompt}".encode("utf-8", "surrogatepass")
    ).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    height, width = request.height, request.width
    colours = random.integers(0, 256, size=(5, 3), dtype=np.uint8)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:] = colours[0]
    for colour in colours[1:]:
        top, left = random.integers(0, height), random.integers(0, width)
        tall = random.integers(1, max(2, height // 2))
        wide = random.integers(1, max(2, width // 2))
        pixels[top : top + tall, left : left + wide] = colour
    return pixels


@dataclass(slots=True, kw_only=True, eq=False)
class _Work(Work):
    left: int


class SimulatedEngine:
    """See ``operators.engine.Engine``. ``speed`` 0 waits for nothing."""

    def __init__(
        self,
        info: EngineInfo,
        measured: Mapping[int, float],
        *,
        speed: float,
        two_pass_guidance: bool,
    ) -> None:
        self._info = info
        self._two_pass_guidance = two_pass_guidance
        self._measured = dict(measured)
        self._speed = speed
        self._batcher = Batcher(max_batch=info.max_batch)
        self._meter = DeviceMeter(HostClock())
        self._work: dict[int, _Work] = {}
        self._admitted = 0
        self._fill = FillCount()

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def stats(self) -> EngineStats:
        active = self._batcher.active
        return EngineStats(
            ticks=self._fill.ticks,
            occupied=self._fill.occupied,
            offered=self._fill.offered,
            other_shapes=self._fill.other_shapes,
            starved=self._fill.starved,
            busy_ns=self._meter.busy_ns,
            active=active,
            waiting=self._batcher.inside - active,
        )

    @property
    def room(self) -> int:
        return self._batcher.room

    @property
    def busy(self) -> bool:
        return self._batcher.inside > 0

    def admit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            work = _Work(
                number=self._admitted,
                request=request,
                two_pass_guidance=self._two_pass_guidance,
                left=request.steps,
            )
            self._work[work.number] = work
            self._batcher.add(work.number, shape=work.shape, steps=request.steps)
            self._admitted += 1

    def overdue(self, limit_s: float) -> list[Request]:
        return [work.request for work in self._work.values() if work.overdue(limit_s)]

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        dropped = [number for number, work in self._work.items() if unwanted(work.request)]
        self._forget(dropped)
        return len(dropped)

    def tick(self, *, more_to_come: bool = False) -> list[ImageResult | ImageFailure]:
        self._meter.start()
        plan = self._batcher.next_tick()
        if plan is None:
            return []
        for number in plan.entering:
            self._work[number].start()
        running = {number: self._work[number] for number in plan.rows}
        self._fill.count(plan, rows=len(running), more_to_come=more_to_come)
        began_ns = time.perf_counter_ns()
        self._wait(plan.shape[0] * plan.shape[1], sum(work.weight for work in running.values()))
        took_ns = time.perf_counter_ns() - began_ns
        for work in running.values():
            work.left -= 1
            work.ran_ns += took_ns
            work.took_part(rows=len(running))
        finished = {number: work for number, work in running.items() if not work.left}
        pictures = [draw_picture(work.request) for work in finished.values()]
        self._meter.lap([(work, work.weight) for work in running.values()])
        self._forget(list(finished))
        return [
            work.result(pixels, truncated_tokens=0)
            for work, pixels in zip(finished.values(), pictures, strict=True)
        ]

    def finish(self) -> list[ImageResult | ImageFailure]:
        return []

    def _wait(self, pixels: int, rows: int) -> None:
        if self._speed > 0:
            seconds = step_seconds(self._measured, rows) * pixels / CALIBRATED_PIXELS
            time.sleep(seconds / self._speed)

    def _forget(self, numbers: Sequence[int]) -> None:
        self._batcher.remove(numbers)
        for number in numbers:
            del self._work[number]
