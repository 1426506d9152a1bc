"""The stepwise engine on a device that works behind the host's back, as a GPU does.

What the device copies arrives late, and its clock can only be read for what it has behind it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from operators import stepwise_engine
from operators.device import CudaClock, HostDevice
from operators.engine import ImageFailure, ImageResult
from operators.stepwise_engine import StepwiseEngine
from tests.stepwise_rows import ask, drain, load, load_info, new_engine, run
from tests.tiny_families import TINY_FAMILIES
from tests.tiny_model import build_tiny_stable_diffusion


class LateClock:
    """Marks are numbers of a queue; each tells 1,000 ns; ``done`` of them are behind the device."""

    behind = CudaClock.behind

    def __init__(self) -> None:
        self.given = 0
        self.done = 0

    def mark(self) -> int:
        self.given += 1
        return self.given

    def passed(self, mark: int) -> bool:
        return mark <= self.done

    def between_ns(self, start: int, end: int) -> int:
        self.done = max(self.done, end)
        return 1000 * (end - start)


class LateDevice(HostDevice):
    """Every copy arrives when it was asked for three times, or is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: Any = LateClock()
        self.waited = 0

    def fetch(self, tensors: list[torch.Tensor]) -> Any:
        return _Late(self, [tensor.clone() for tensor in tensors])


class _Late:
    def __init__(self, device: LateDevice, tensors: list[torch.Tensor]) -> None:
        self.device = device
        self.tensors = tensors
        self.behind = device.clock.given
        self.asked = 0

    def arrived(self) -> bool:
        self.asked += 1
        return self.asked > 3

    def take(self) -> list[np.ndarray]:
        self.device.waited += not self.asked > 3
        self.device.clock.done = max(self.device.clock.done, self.behind)
        return [tensor.numpy() for tensor in self.tensors]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(build_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny")))._family
    torch.set_num_threads(threads)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> LateDevice:
    late = LateDevice()
    monkeypatch.setattr(stepwise_engine, "device_for", lambda _: late)
    return late


def late_engine(family, **info) -> StepwiseEngine:
    return StepwiseEngine(family, dataclasses.replace(load_info(), **info))


def test_pictures_that_arrive_late_are_the_same(family, device, monkeypatch):
    rows = [ask(n, steps=2 + n % 5, guidance_scale=float(n % 3)) for n in range(12)]
    made = run(late_engine(family), rows)
    monkeypatch.undo()
    expected = run(new_engine(family), rows)
    for row_id, outcome in expected.items():
        assert np.array_equal(made[row_id].pixels, outcome.pixels)


def test_late_time_is_charged_to_the_last_nanosecond(family, device):
    engine = late_engine(family)
    outcomes = run(engine, [ask(n, steps=1 + n % 4) for n in range(11)])
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes.values())
    assert sum(outcome.device_ns for outcome in outcomes.values()) == engine.stats.busy_ns > 0


def test_the_host_is_no_more_than_three_steady_ticks_ahead(family, device):
    engine = late_engine(family)
    engine.admit([ask(n, steps=20) for n in range(4)])
    after = []
    for _ in range(9):
        assert engine.tick() == []
        after.append(device.clock.given)
    assert after[-4] <= device.clock.done < after[-3]


def test_the_next_rows_are_denoised_while_pictures_are_under_way(family, device):
    engine = late_engine(family, max_batch=1)
    run(engine, [ask(n, steps=4) for n in range(5)])
    # only the very last picture had nothing left to hide behind
    assert device.waited == 1


def test_pictures_under_way_can_be_discarded(family, device):
    engine = late_engine(family, max_batch=2)
    engine.admit([ask(0, steps=1), ask(1, steps=1), ask(2, steps=5)])
    assert engine.tick() == []
    assert engine.busy
    assert engine.discard(lambda request: request.row_id == 1) == 1
    assert sorted(drain(engine)) == [0, 2]


def test_a_row_that_became_no_number_leaves_when_that_is_known(family, device):
    engine = late_engine(family)
    outcomes = run(engine, [ask(0, guidance_scale=1e38, steps=500), ask(1, steps=4)])
    assert isinstance(outcomes[0], ImageFailure)
    assert outcomes[0].reason == "nan_image"
    assert isinstance(outcomes[1], ImageResult)
    assert engine.stats.ticks < 50
    assert sum(outcome.device_ns for outcome in outcomes.values()) == engine.stats.busy_ns


def test_whoever_leaves_early_gets_what_is_finished_and_pays_for_the_rest(family, device):
    engine = late_engine(family, max_batch=2)
    engine.admit([ask(0, steps=2), ask(1, steps=9)])
    assert [engine.tick() for _ in range(3)] == [[]] * 3
    ticks = engine.stats.ticks
    (finished,) = engine.finish()
    assert isinstance(finished, ImageResult)
    assert finished.request.row_id == 0
    assert (engine.stats.ticks, engine.stats.active) == (ticks, 1)
    (left,) = engine._work.values()
    assert engine.stats.busy_ns == finished.device_ns + left.device_ns
    assert len(engine._meter._open) == 0
    assert engine.finish() == []


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: reading a value of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_the_host_reads_no_value_of_the_device_inside_a_tick(name, tmp_path, device, monkeypatch):
    build, samplers = TINY_FAMILIES[name]
    engine = late_engine(load(build(tmp_path))._family)
    engine.admit([ask(n, steps=9, sampler=samplers[n % 2]) for n in range(4)])
    engine.tick()
    waited = []
    for method in ("cpu", "item", "tolist", "__bool__"):
        original = getattr(torch.Tensor, method)

        def spy(self, *args, _original=original, _method=method):
            waited.append(_method)
            return _original(self, *args)

        monkeypatch.setattr(torch.Tensor, method, spy)
    for maker in ("tensor", "as_tensor"):
        original = getattr(torch, maker)

        def make(*args, _original=original, _maker=maker, **how):
            waited.extend([_maker] if how.get("device") is not None else [])
            return _original(*args, **how)

        monkeypatch.setattr(torch, maker, make)
    with Waits() as waits:
        for _ in range(3):
            assert engine.tick() == []
    assert (waits.count, waited) == (0, [])
