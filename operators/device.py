"""How numbers get to a device and pictures back, without the host waiting for its work.

On a GPU, what goes there is staged in pinned memory, what comes back is copied beside the work that
follows it, and time is told by marks in its queue. On the CPU all of that is a plain call.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from operators.device_time import Clock, HostClock

_LAPS_BEHIND = 3
"""Laps that a GPU may be behind: three steady ticks, which make one lap each. Ticks in which rows
enter or leave make more laps, and fewer of them are given out ahead."""


class Fetch(Protocol):
    """Tensors on their way to the host."""

    def arrived(self) -> bool:
        """Whether ``take`` would not wait."""

    def take(self) -> list[npt.NDArray[Any]]:
        """The tensors' values, waiting for them if need be."""


class Device(Protocol):
    """Where the model is."""

    where: torch.device
    clock: Clock

    def stage(self, values: npt.NDArray[Any]) -> torch.Tensor:
        """The values on the device; they may still be under way when the next work is given out."""

    def fetch(self, tensors: list[torch.Tensor]) -> Fetch:
        """Begin to copy finished tensors to the host."""


def device_for(device: torch.device) -> Device:
    """How to deal with ``device``."""
    return CudaDevice(device) if device.type == "cuda" else HostDevice()


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on ``device``; it may still be under way when the next work is given out.

    A plain copy to a GPU would wait for all work before it.
    """
    if device.type != "cuda":
        return values.to(device)
    # the allocator keeps pinned memory until its copy is done
    return values.pin_memory().to(device, non_blocking=True)


class _Here:
    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._values = [tensor.numpy() for tensor in tensors]

    def arrived(self) -> bool:
        return True

    def take(self) -> list[npt.NDArray[Any]]:
        return self._values


class HostDevice:
    """The CPU."""

    def __init__(self) -> None:
        self.where = torch.device("cpu")
        self.clock: Clock = HostClock()

    def stage(self, values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values)

    def fetch(self, tensors: list[torch.Tensor]) -> Fetch:
        return _Here(tensors)


class _CudaFetch:
    def __init__(self, tensors: list[torch.Tensor], copied: Any) -> None:
        self._tensors = tensors
        self._copied = copied

    def arrived(self) -> bool:
        return bool(self._copied.query())

    def take(self) -> list[npt.NDArray[Any]]:
        self._copied.synchronize()
        # the pinned memory goes back to its pool with the tensor
        return [np.array(tensor.numpy()) for tensor in self._tensors]


class CudaClock:
    """Events in the current stream of a GPU."""

    behind = _LAPS_BEHIND

    def mark(self) -> Any:
        return _recorded(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]

    def passed(self, mark: Any) -> bool:
        return bool(mark.query())

    def between_ns(self, start: Any, end: Any) -> int:
        end.synchronize()
        return int(start.elapsed_time(end) * 1e6)


class CudaDevice:
    """One GPU."""

    def __init__(self, device: torch.device) -> None:
        self.where = device
        self.clock: Clock = CudaClock()
        self._copies: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def stage(self, values: npt.NDArray[Any]) -> torch.Tensor:
        return to_device(torch.from_numpy(values), self.where)

    def fetch(self, tensors: list[torch.Tensor]) -> Fetch:
        self._copies.wait_stream(torch.cuda.current_stream(self.where))
        with torch.cuda.stream(self._copies):
            here = []
            for tensor in tensors:
                pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                here.append(pinned.copy_(tensor, non_blocking=True))
                tensor.record_stream(self._copies)
            copied = _recorded(torch.cuda.Event())  # type: ignore[no-untyped-call]
        return _CudaFetch(here, copied)


def _recorded(event: Any) -> Any:
    event.record()
    return event
