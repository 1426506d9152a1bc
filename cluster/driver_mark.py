"""The sign of life of a driver: a small object that it replaces as long as it lives.

Whether a driver lives is told by watching the mark change, never by comparing clocks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from cluster import layout
from cluster.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverMark:
    """``seq`` grows with every mark of a run's driver; ``since`` is its own clock's, for people, as
    are ``crew``, its workers in words, and ``ends_at``, when it expects to be done with a deadline
    (ISO 8601)."""

    run: int
    seq: int
    host: str
    pid: int
    since: str
    crew: str = ""
    ends_at: str | None = None


def write_mark(store: Store, mark: DriverMark) -> None:
    """Replace the run's mark."""
    store.put(layout.driver(mark.run), (json.dumps(asdict(mark)) + "\n").encode())


def read_mark(store: Store, run: int) -> DriverMark | None:
    """The newest mark of a run's driver; None when there is none that can be read."""
    data = store.get(layout.driver(run))
    if data is None:
        return None
    try:
        return DriverMark(**json.loads(data))
    except (ValueError, TypeError):
        return None
