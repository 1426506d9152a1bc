"""Pictures on their way from the device to the host, each with the request that it is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from operators.decode import Decoded
from operators.device import Device
from operators.engine import Pixels
from operators.request import Request
from operators.work import Work

W = TypeVar("W", bound=Work)


class Readback(Generic[W]):
    """Images of one size that were decoded together; ``take`` is called once."""

    def __init__(self, device: Device, made: Sequence[tuple[W, Decoded]]) -> None:
        self._works: list[W | None] = [work for work, _ in made]
        images = [decoded for _, decoded in made]
        self._fetch = device.fetch(
            [torch.stack([d.pixels for d in images]), torch.stack([d.finite for d in images])]
        )

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        """Drop what is not wanted any more; returns how many were dropped."""
        kept = [None if work is None or unwanted(work.request) else work for work in self._works]
        dropped = sum(work is not None for work in self._works) - sum(w is not None for w in kept)
        self._works = kept
        return dropped

    def arrived(self) -> bool:
        """Whether ``take`` would not wait."""
        return self._fetch.arrived()

    def take(self) -> list[tuple[W, Pixels | None]]:
        """The images; None where one is no number."""
        pixels, finite = self._fetch.take()
        return [
            (work, image if is_finite else None)
            for work, image, is_finite in zip(self._works, pixels, finite, strict=True)
            if work is not None
        ]
