"""The stepwise engine on a real GPU: runs where one is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operators.device import CudaDevice
from operators.engine import ImageResult
from tests.stepwise_rows import ask, difference, drain, load, reference, run
from tests.tiny_families import TINY_FAMILIES
from tests.tiny_model import build_tiny_stable_diffusion

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny"))


def test_pictures_are_those_of_diffusers_on_the_cpu(path):
    rows = [ask(n, steps=2 + n % 5, guidance_scale=float(n % 3)) for n in range(12)]
    made, expected = run(load(path), rows), reference(path, rows)
    for row_id, picture in expected.items():
        assert difference(made[row_id].pixels, picture) <= 1


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_no_tick_waits_for_the_device(name, tmp_path):
    build, samplers = TINY_FAMILIES[name]
    engine = load(build(tmp_path))
    engine.admit([ask(n, steps=20, sampler=samplers[n % 2]) for n in range(4)])
    for _ in range(3):
        engine.tick()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            assert engine.tick() == []
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(drain(engine)) == 4


def test_device_time_is_charged_to_the_last_nanosecond(path):
    engine = load(path)
    outcomes = run(engine, [ask(n, steps=1 + n % 4) for n in range(11)])
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes.values())
    assert sum(outcome.device_ns for outcome in outcomes.values()) == engine.stats.busy_ns > 0


def test_what_is_staged_and_fetched_arrives_whole():
    device = CudaDevice(torch.device("cuda"))
    given = [np.random.default_rng(seed).standard_normal((64, 1024)) for seed in range(20)]
    on_device = [device.stage(values) * 2 for values in given]
    fetched = device.fetch(on_device).take()
    for values, back in zip(given, fetched, strict=True):
        assert np.array_equal(back, 2 * values)
