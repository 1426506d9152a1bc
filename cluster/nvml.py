"""The energy counters of NVIDIA GPUs, from the driver's own library (NVML); nothing is installed.

``nvmlDeviceGetTotalEnergyConsumption``: millijoules since the driver was loaded; of Volta and
newer.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from typing import Any, Self

log = logging.getLogger("imagemill")
_LIBRARY = "libnvidia-ml.so.1"
_OK = 0


class GpuEnergy:
    """The counters of some GPUs."""

    def __init__(self, library: Any, handles: Sequence[ctypes.c_void_p]) -> None:
        self._library = library
        self._handles = handles

    @classmethod
    def of(cls, gpus: Sequence[str]) -> Self | None:
        """The GPUs by index or UUID; None where there are none, or one of them does not tell."""
        if not gpus:
            return None
        try:
            library = ctypes.CDLL(_LIBRARY)
            if library.nvmlInit_v2() != _OK:
                return None
            handles = [_handle(library, gpu) for gpu in gpus]
        except (OSError, AttributeError, ValueError) as error:
            log.debug("no energy is measured: %s", error, extra={"event": "no_energy"})
            return None
        found = cls(library, handles)
        return None if found.millijoules() is None else found

    def millijoules(self) -> int | None:
        """The sum of the counters; None where one cannot be read."""
        total = 0
        for handle in self._handles:
            value = ctypes.c_ulonglong()
            status = self._library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value))
            if status != _OK:
                return None
            total += value.value
        return total


def _handle(library: Any, gpu: str) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    if gpu.isdigit():
        status = library.nvmlDeviceGetHandleByIndex_v2(int(gpu), ctypes.byref(handle))
    else:
        status = library.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(handle))
    if status != _OK:
        raise ValueError(f"NVML does not know GPU {gpu} (status {status})")
    return handle
