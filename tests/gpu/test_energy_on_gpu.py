"""The energy of a real GPU, by the driver's own counter."""

from __future__ import annotations

import pytest
import torch

from cluster.energy import PowerMeter
from cluster.nvml import GpuEnergy
from conf.schema import EnergyConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
SECONDS_OF_WORK = 2.0


def test_the_power_of_a_gpu_at_work_is_measured_and_a_half_of_it_is_half() -> None:
    counter = GpuEnergy.of(("0",))
    assert counter is not None, "Volta and newer tell their energy"
    stated = EnergyConfig(watts=1e9, grid_g_per_kwh=None, embodied_g_per_hour=None)
    whole, half = PowerMeter(stated, ("0",), 1.0), PowerMeter(stated, ("0",), 0.5)
    before = counter.millijoules()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    matrix = torch.ones(4096, 4096, device="cuda")
    start.record()
    while True:
        matrix = torch.tanh(matrix @ matrix)
        end.record()
        end.synchronize()
        if start.elapsed_time(end) > SECONDS_OF_WORK * 1000:
            break
    after = counter.millijoules()
    assert before is not None
    assert after is not None
    assert after > before
    of_all, of_half = whole.read(), half.read()
    assert of_all is not None
    assert of_half is not None
    assert (of_all.method, of_half.method) == ("nvml", "nvml")
    assert 10 < of_all.watts < 3000
    assert of_half.watts == pytest.approx(of_all.watts / 2, rel=0.2)
