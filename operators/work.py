"""A request inside an engine, from its admission to its one outcome.

Engines extend ``Work`` by what they keep for a row. Knows nothing of how images are made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from conf.errors import RowRejected
from operators.engine import ImageFailure, ImageResult, Pixels
from operators.guidance import guidance_passes
from operators.request import Request


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """``number`` is unique in its engine; ``device_ns`` is what the request was charged so far, its
    share of the ``ran_ns`` that its ticks took. ``two_pass_guidance`` is the model's. ``ticks`` are
    those that it took part in, ``seen_rows`` the sum of their rows, itself among them."""

    number: int
    request: Request
    two_pass_guidance: bool
    device_ns: int = 0
    ran_ns: int = 0
    ticks: int = 0
    seen_rows: int = 0
    started_at_ns: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels: requests of one shape can share a batch."""
        return (self.request.height, self.request.width)

    @property
    def guided(self) -> bool:
        """Whether it has a guidance pass, with its negative prompt."""
        return self.weight == 2

    @property
    def weight(self) -> int:
        """How many rows of the forward pass it needs."""
        return guidance_passes(
            self.request.guidance_scale, two_pass_guidance=self.two_pass_guidance
        )

    def start(self) -> None:
        """It got a slot."""
        self.started_at_ns = time.time_ns()

    def took_part(self, *, rows: int) -> None:
        """It took part in a tick of so many rows."""
        self.ticks += 1
        self.seen_rows += rows

    def overdue(self, limit_s: float) -> bool:
        """Whether its ticks took longer than this."""
        return self.ran_ns > limit_s * 1e9

    def failure(self, error: RowRejected) -> ImageFailure:
        return ImageFailure(
            request=self.request,
            stage=error.stage,
            reason=error.reason,
            message=error.message,
            device_ns=self.device_ns,
        )

    def result(self, pixels: Pixels, *, truncated_tokens: int) -> ImageResult:
        return ImageResult(
            request=self.request,
            pixels=pixels,
            device_ns=self.device_ns,
            truncated_tokens=truncated_tokens,
            batch_rows=round(self.seen_rows / self.ticks) if self.ticks else 1,
            started_at_ns=self.started_at_ns,
            finished_at_ns=time.time_ns(),
        )
