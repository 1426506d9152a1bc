"""How often a store was asked for something, which stores charge for. Safe to use from threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Every try counts. ``writes`` are what S3 charges as such, listings among them."""

    writes: int = 0
    reads: int = 0
    read_bytes: int = 0


class Traffic:
    """Running totals of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = Requests()

    @property
    def now(self) -> Requests:
        """The totals so far."""
        return self._requests

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
