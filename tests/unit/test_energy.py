"""Energy and carbon are measured or stated; what nobody knows is null."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.energy import Footprint, Power, PowerMeter, footprint
from cluster.nvml import GpuEnergy
from cluster.tables import read_parquet
from conf.schema import EnergyConfig
from tests.small_jobs import run_small_job

HOUR_NS = 3600 * 10**9
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def stated(
    watts: float | None = None, grid: float | None = None, embodied: float | None = None
) -> EnergyConfig:
    return EnergyConfig(watts=watts, grid_g_per_kwh=grid, embodied_g_per_hour=embodied)


def test_energy_is_power_by_time_and_carbon_is_by_sci() -> None:
    power = Power(watts=400, method="nvml")
    assert footprint(HOUR_NS // 4, power, stated(grid=250, embodied=20)) == Footprint(
        energy_wh=100,
        energy_method="nvml",
        gco2e=25 + 5,
        grid_g_per_kwh=250,
        carbon_method="SCI 1.1: E x I + M",
    )
    without = footprint(HOUR_NS // 4, power, stated(grid=250))
    assert (without.gco2e, without.carbon_method) == (25, "SCI 1.1: E x I")


def test_what_is_not_known_is_null() -> None:
    assert footprint(HOUR_NS, None, stated(grid=250)) == Footprint()
    known = footprint(HOUR_NS, Power(watts=1, method="stated"), stated(embodied=3))
    assert known == Footprint(energy_wh=1, energy_method="stated")


def test_without_a_gpu_that_tells_the_power_is_what_was_stated_or_unknown() -> None:
    assert PowerMeter(stated(watts=65), (), 1.0).read() == Power(watts=65, method="stated")
    assert PowerMeter(stated(), (), 1.0).read() is None
    assert GpuEnergy.of(()) is None
    assert GpuEnergy.of(("GPU-of-nobody",)) is None


@pytest.mark.parametrize("output_format", ["files", "webdataset"])
def test_images_carry_their_energy_and_carbon(tmp_path: Path, output_format: str) -> None:
    changes = {"energy.watts": 3600, "energy.grid_g_per_kwh": 500, "output.format": output_format}
    small = run_small_job(tmp_path, [{"prompt": "x"}], **TINY, **changes)
    (row,) = metadata(small.store)
    assert row["energy_wh"] == pytest.approx(row["gpu_seconds"])
    assert row["gco2e"] == pytest.approx(row["gpu_seconds"] / 2)
    assert (row["energy_method"], row["carbon_method"]) == ("stated", "SCI 1.1: E x I")


def test_images_of_unknown_power_carry_nulls(tmp_path: Path) -> None:
    (row,) = metadata(run_small_job(tmp_path, [{"prompt": "x"}], **TINY).store)
    names = ("energy_wh", "energy_method", "gco2e", "grid_g_per_kwh", "carbon_method")
    assert [row[name] for name in names] == [None] * 5


def metadata(store: Any) -> list[dict[str, Any]]:
    (entry,) = store.listing("metadata/")
    rows: list[dict[str, Any]] = read_parquet(store.get(entry.key) or b"").to_pylist()
    return rows
