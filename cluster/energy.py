"""What an image took of power, and what that emitted: measured or stated, never made up. Pure, but
for the meter.

Carbon is that of the Software Carbon Intensity specification 1.1 (SCI) for one image:
``(E x I + M) per R`` with E the energy, I the grid's intensity, M the share of what making the
hardware emitted, and R the image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.nvml import GpuEnergy
from conf.schema import EnergyConfig

_NS_PER_HOUR = 3600 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The power of a worker in watts; ``method`` is nvml or stated."""

    watts: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Of one image; None is not known. ``grid_g_per_kwh`` is the intensity reckoned with."""

    energy_wh: float | None = None
    energy_method: str | None = None
    gco2e: float | None = None
    grid_g_per_kwh: float | None = None
    carbon_method: str | None = None


def footprint(device_ns: int, power: Power | None, stated: EnergyConfig) -> Footprint:
    """What ``device_ns`` of a worker at this power come to."""
    if power is None:
        return Footprint()
    hours = device_ns / _NS_PER_HOUR
    energy_wh = power.watts * hours
    grid, embodied = stated.grid_g_per_kwh, stated.embodied_g_per_hour
    if grid is None:
        return Footprint(energy_wh=energy_wh, energy_method=power.method)
    return Footprint(
        energy_wh=energy_wh,
        energy_method=power.method,
        gco2e=energy_wh / 1000 * grid + (embodied or 0) * hours,
        grid_g_per_kwh=grid,
        carbon_method="SCI 1.1: E x I" + ("" if embodied is None else " + M"),
    )


class PowerMeter:
    """The mean power of a worker between two readings. One thread reads.

    Args:
        stated: what the configuration says.
        gpus: the GPUs that the worker is on, as Ray names them.
        share: how much of them is the worker's, such as 0.5.
    """

    def __init__(self, stated: EnergyConfig, gpus: Sequence[str], share: float) -> None:
        self._stated = stated
        self._share = share
        self._gpus = GpuEnergy.of(gpus)
        self._last = self._now()

    def read(self) -> Power | None:
        """Since the reading before: measured where the GPUs tell, else as stated, else None."""
        now, last = self._now(), self._last
        if now is not None and last is not None and now[1] > last[1]:
            self._last = now
            joules = (now[0] - last[0]) / 1000
            return Power(watts=joules / (now[1] - last[1]) * self._share, method="nvml")
        if self._stated.watts is None:
            return None
        return Power(watts=self._stated.watts, method="stated")

    def _now(self) -> tuple[int, float] | None:
        """Millijoules so far, and when; None where the GPUs do not tell."""
        found = self._gpus.millijoules() if self._gpus else None
        return None if found is None else (found, time.monotonic())
