"""What servers spent on requests whose answers were lost, told by what others cost. Pure.

An answer tells its device time; a request that was cancelled, that timed out or that died with its
server tells nothing. It counts as much as answered ones of this worker cost for a pixel-step, for
the part of their mean stay at a server that it stayed; for no more than all its pixel-steps. That
is an estimate: a stay is waiting and work, and how long it waited nobody tells.
"""

from __future__ import annotations

from operators.request import Request


class LostTime:
    """Learns from what is answered; before the first answer nothing is known and nothing counts."""

    def __init__(self) -> None:
        self._answers = 0
        self._stay_s = 0.0
        self._device_ns = 0
        self._pixel_steps = 0

    def answered(self, request: Request, *, device_ns: int, stay_s: float) -> None:
        """An image came, ``stay_s`` after it was asked for."""
        self._answers += 1
        self._stay_s += stay_s
        self._device_ns += device_ns
        self._pixel_steps += _pixel_steps(request)

    def estimate_ns(self, request: Request, *, stay_s: float) -> int:
        """About how much device time went into a request that was given up after ``stay_s``."""
        if not self._answers or self._stay_s <= 0:
            return 0
        whole = self._device_ns * _pixel_steps(request) / self._pixel_steps
        return round(whole * min(1.0, stay_s * self._answers / self._stay_s))


def _pixel_steps(request: Request) -> int:
    return request.steps * request.width * request.height
