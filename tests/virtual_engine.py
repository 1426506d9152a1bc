"""The simulated engine's table and batcher in virtual time, with noisy steps: for jobs of hours in
milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from operators.batcher import Batcher
from operators.engine import EngineInfo, EngineStats, ImageFailure, ImageResult
from operators.engines.simulated import CALIBRATED_PIXELS, step_seconds
from operators.guidance import guidance_passes
from operators.request import Request

_PICTURE = np.zeros((8, 8, 3), np.uint8)


@dataclass(slots=True)
class _Inside:
    request: Request
    left: int
    device_ns: int = 0


class VirtualEngine:
    """See ``operators.engine.Engine``. ``now_s`` is its clock, which only ticks move.

    Args:
        noise: relative standard deviation of a step's time.
        pace: how many times slower than the table this run is.
        fails: requests that become no image.
    """

    def __init__(
        self,
        table: Mapping[int, float],
        random: Random,
        *,
        max_batch: int = 8,
        noise: float = 0.0,
        pace: float = 1.0,
        fails: Callable[[Request], bool] = lambda _: False,
    ) -> None:
        self.now_s = 0.0
        self.made = 0
        self._table = table
        self._random = random
        self._noise = noise
        self._pace = pace
        self._fails = fails
        self._batcher = Batcher(max_batch=max_batch)
        self._inside: dict[int, _Inside] = {}
        self._admitted = 0
        self._busy_ns = 0
        self._max_batch = max_batch

    def clock(self) -> float:
        return self.now_s

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name="virtual",
            model="virtual",
            model_revision="virtual",
            device="virtual",
            precision="float32",
            max_batch=self._max_batch,
            simulated=True,
        )

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            ticks=0,
            occupied=0,
            offered=0,
            other_shapes=0,
            starved=0,
            busy_ns=self._busy_ns,
            active=self._batcher.active,
            waiting=self._batcher.inside - self._batcher.active,
        )

    @property
    def room(self) -> int:
        return self._batcher.room

    @property
    def busy(self) -> bool:
        return self._batcher.inside > 0

    def admit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._inside[self._admitted] = _Inside(request, request.steps)
            shape = (request.height, request.width)
            self._batcher.add(self._admitted, shape=shape, steps=request.steps)
            self._admitted += 1

    def overdue(self, limit_s: float) -> list[Request]:
        return []

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        dropped = [number for number, one in self._inside.items() if unwanted(one.request)]
        self._forget(dropped)
        return len(dropped)

    def tick(self, *, more_to_come: bool = False) -> list[ImageResult | ImageFailure]:
        plan = self._batcher.next_tick()
        if plan is None:
            return []
        running = {number: self._inside[number] for number in plan.rows}
        weights = {number: weight(one.request) for number, one in running.items()}
        rows = sum(weights.values())
        pixels = plan.shape[0] * plan.shape[1] / CALIBRATED_PIXELS
        noise = math.exp(self._random.gauss(0, self._noise))
        seconds = step_seconds(self._table, rows) * pixels * self._pace * noise
        self.now_s += seconds
        self._busy_ns += round(seconds * 1e9)
        for number, one in running.items():
            one.device_ns += round(seconds * 1e9 * weights[number] / rows)
            one.left -= 1
        done = {number: one for number, one in running.items() if not one.left}
        self._forget(list(done))
        return [self._result(one) for one in done.values()]

    def finish(self) -> list[ImageResult | ImageFailure]:
        return []

    def _result(self, one: _Inside) -> ImageResult | ImageFailure:
        if self._fails(one.request):
            return ImageFailure(
                request=one.request,
                stage="check",
                reason="not_finite",
                message="the image has values that are not finite",
                device_ns=one.device_ns,
            )
        self.made += 1
        return ImageResult(
            request=one.request,
            pixels=_PICTURE,
            device_ns=one.device_ns,
            truncated_tokens=0,
            started_at_ns=0,
            finished_at_ns=0,
        )

    def _forget(self, numbers: Sequence[int]) -> None:
        self._batcher.remove(numbers)
        for number in numbers:
            del self._inside[number]


def weight(request: Request) -> int:
    """Rows of the forward pass that a request needs."""
    return guidance_passes(request.guidance_scale, two_pass_guidance=True)


def job_seconds(
    requests: Sequence[Request], engines: Sequence[VirtualEngine], *, shard_rows: int
) -> float:
    """When the last of the engines has made its last image: each takes the next shard when it has
    room for one."""
    shards = [requests[first : first + shard_rows] for first in range(0, len(requests), shard_rows)]
    shards.reverse()
    alive = list(engines)
    while alive:
        engine = min(alive, key=VirtualEngine.clock)
        while shards and engine.room:
            engine.admit(shards.pop())
        if engine.busy:
            engine.tick()
        else:
            alive.remove(engine)
    return max(engine.now_s for engine in engines)
