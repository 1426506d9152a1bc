"""The engine protocol: what a worker needs from anything that turns requests into pixels.

An engine is driven by one thread: ``admit`` requests while ``room`` is positive, call ``tick``
until ``busy`` is false, or ``finish`` to leave before that. It owns batching; it knows nothing of
shards, leases, files or money.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from operators.request import Request

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What made the images. ``simulated`` engines must say so everywhere they are named.

    ``precision`` and ``compile`` are what became of the keys of these names, ``compile_seconds``
    what compiling took at loading. ``devices`` is how many make images at a time.
    ``shared_memory``: a server wrote into memory of this process when the engine began.
    """

    name: str
    model: str
    model_revision: str
    device: str
    precision: str
    max_batch: int
    simulated: bool
    compile: str = "off"
    compile_seconds: float = 0.0
    devices: int = 1
    shared_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """A finished image: ``pixels`` is uint8, H x W x 3, RGB.

    ``device_ns`` is the image's exact share of the ticks, conditioning and decodes it took part in;
    ``truncated_tokens`` counts prompt tokens that the text encoder could not see, ``batch_rows``
    the rows of the ticks it took part in, on average. Times are wall clock, nanoseconds since the
    epoch.
    """

    request: Request
    pixels: Pixels
    device_ns: int
    truncated_tokens: int
    started_at_ns: int
    finished_at_ns: int
    batch_rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFailure:
    """A request that cannot become an image; the others in its batch are unharmed."""

    request: Request
    stage: str
    reason: str
    message: str
    device_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Running totals. Fill = ``occupied`` / ``offered`` (slots, summed over ticks).

    Of the slots that stayed empty, ``other_shapes`` had only rows of another shape to wait for and
    ``starved`` the next rows, which had not arrived; for the rest there was no row left.

    ``busy_ns`` is all device time spent so far: it equals the ``device_ns`` of everything that was
    returned, plus that of requests still inside, plus that of discarded ones. Nobody measured
    ``estimated_ns`` of it.
    """

    ticks: int
    occupied: int
    offered: int
    other_shapes: int
    starved: int
    busy_ns: int
    active: int
    waiting: int
    estimated_ns: int = 0


class Engine(Protocol):
    """Turns requests into pixels, many at a time."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def stats(self) -> EngineStats: ...

    @property
    def room(self) -> int:
        """How many more requests it wants to hold now (running plus look-ahead)."""

    @property
    def busy(self) -> bool:
        """Whether any request is inside."""

    def admit(self, requests: Sequence[Request]) -> None:
        """Take requests over; each comes back exactly once unless discarded."""

    def tick(self, *, more_to_come: bool = False) -> list[ImageResult | ImageFailure]:
        """Advance one batch by one step; return what finished or failed.

        Never raises for one row; what it raises means that the device is lost. ``more_to_come``:
        requests may be admitted later, which tells a starved batch from the last one.
        """

    def finish(self) -> list[ImageResult | ImageFailure]:
        """Hand over what is finished and was not returned yet, waiting for it; denoise no more.

        All device time spent so far is in ``stats.busy_ns`` then. Raises what ``tick`` does.
        """

    def overdue(self, limit_s: float) -> list[Request]:
        """Requests whose ticks took longer than this, summed over all that they took part in."""

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        """Drop the requests inside for which ``unwanted`` holds; returns how many were dropped."""
