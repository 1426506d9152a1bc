"""Whether memory bears a larger batch, told from what the present one takes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from operators.device import Device

_SHARE = 0.9
"""How much of what is free may be used."""
_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_FORGET_PEAK = Path("/proc/self/clear_refs")
_PLENTY = 1 << 60


class Headroom:
    """Compares now with the moment of its construction, when only the model was in memory."""

    def __init__(self, device: Device) -> None:
        self._device = device.where
        self._forget_peak()
        self._model_bytes = self._used()

    def may_double(self) -> bool:
        """Whether twice of all that came on top of the model would fit."""
        used = self._used() - self._model_bytes
        return used <= _SHARE * self._free()

    def _forget_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with suppress(OSError):
            _FORGET_PEAK.write_text("5")

    def _used(self) -> int:
        """The most bytes that were in use since."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _kilobytes(_STATUS, "VmHWM") << 10

    def _free(self) -> int:
        if self._device.type != "cuda":
            return min(_kilobytes(_MEMINFO, "MemAvailable") << 10, _free_of_group())
        # what the allocator holds but does not use now is free for the next batch
        unused = torch.cuda.memory_reserved(self._device) - torch.cuda.max_memory_allocated(
            self._device
        )
        return torch.cuda.mem_get_info(self._device)[0] + max(0, unused)


def _kilobytes(file: Path, name: str) -> int:
    """A value of a file of ``/proc``; 0 where it is not told."""
    try:
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _free_of_group() -> int:
    """What the container's limit leaves; without one, more than any machine has."""
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        used = int((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return _PLENTY
    return max(0, int(limit) - used) if limit.isdecimal() else _PLENTY
