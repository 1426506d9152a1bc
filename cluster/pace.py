"""How fast a worker makes images, measured over all that are at work. Pure: time comes with the
calls. Each report costs the same however many workers there are.
"""

from __future__ import annotations

import math

_MEMORY_S = 1800.0
"""What was made so long ago counts a third: the rows of a job need not be alike."""


class Pace:
    """Images, and the seconds that workers took for them.

    A worker is timed from the report of its first images on, so that its start is not in it, and
    from one report of more images to the next, so that a batch under way is not in it either.
    """

    def __init__(self) -> None:
        self._images = 0.0
        self._seconds = 0.0
        self._at_s = 0.0
        self._last: dict[str, tuple[int, float]] = {}

    def report(self, worker: str, made: int, now_s: float) -> None:
        """The worker has made so many images in all; never called with an earlier time."""
        before = self._last.get(worker)
        if not made or (before is not None and made <= before[0]):
            return
        self._last[worker] = (made, now_s)
        if before is not None:
            kept = math.exp((self._at_s - now_s) / _MEMORY_S)
            self._images = self._images * kept + made - before[0]
            self._seconds = self._seconds * kept + now_s - before[1]
            self._at_s = now_s

    def gone(self, worker: str) -> None:
        """The worker reports no more."""
        self._last.pop(worker, None)

    @property
    def rate(self) -> float | None:
        """Images a second of one worker; None: not known yet."""
        return self._images / self._seconds if self._seconds > 0 else None
