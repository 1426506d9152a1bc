"""How often a store was asked for something, which stores charge for, and how hard it was.

Safe to use from threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Every try counts. ``writes`` are what S3 charges as such, listings among them."""

    writes: int = 0
    reads: int = 0
    read_bytes: int = 0


class Traffic:
    """Running totals of one process. ``put_took`` hears, in the thread of each new object, how many
    seconds it took to land."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = Requests()
        self._retries = 0
        self.put_took: Callable[[float], None] = _nobody_hears

    @property
    def now(self) -> Requests:
        """The totals so far."""
        return self._requests

    @property
    def retries(self) -> int:
        """Tries so far that failed and were made again."""
        return self._retries

    def retried(self) -> None:
        """A try failed and is made again."""
        with self._lock:
            self._retries += 1

    def add(self, *, writes: int = 0, reads: int = 0, read_bytes: int = 0) -> None:
        """Count."""
        with self._lock:
            before = self._requests
            self._requests = replace(
                before,
                writes=before.writes + writes,
                reads=before.reads + reads,
                read_bytes=before.read_bytes + read_bytes,
            )


def _nobody_hears(seconds: float) -> None:
    """Put latencies are told where somebody asked for them."""
