"""A worker's lifetime: what is billed, and the stamps that prove it in the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum

from cluster import layout
from cluster.price import Price
from cluster.records import Stamp, to_json
from cluster.store import Store
from cluster.traffic import Requests
from operators.engine import EngineStats


def utc_now() -> str:
    """The wall clock as ISO 8601 in UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class ServerBilling(Enum):
    """How servers that make a worker's images are paid for.

    ``OWNED``: they work for the job alone, which pays for each of their devices while the worker
    lives. ``SHARED``: the job pays for the time that they spent on it.
    """

    OWNED = "owned"
    SHARED = "shared"


class Lifetime:
    """Counts a worker's nanoseconds from its construction on. Safe to use from several threads.

    Args:
        servers: who pays for the servers that make its images; None: it makes them itself, and its
            own time is billed.
    """

    def __init__(
        self,
        *,
        worker: str,
        run: int,
        node: str,
        gpus: str,
        price: Price,
        servers: ServerBilling | None = None,
    ) -> None:
        self._start_ns = time.monotonic_ns()
        self._started_at = utc_now()
        self._worker = worker
        self._run = run
        self._node = node
        self._gpus = gpus
        self._price = price
        self._servers = servers
        self._devices = 1
        self._overhead_ns = 0
        self._seq = 0
        self._lock = threading.Lock()

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds since the start."""
        return time.monotonic_ns() - self._start_ns

    @property
    def nano_per_hour(self) -> int | None:
        """What an hour of this life costs at most; None where no price is known."""
        price = self._price.nano_per_hour
        return price if price is None else price * self._devices

    def serve(self, devices: int) -> None:
        """So many devices make the worker's images, from its start on; known once they answered."""
        self._devices = devices

    @contextmanager
    def overhead(self) -> Iterator[None]:
        """Count the time inside as overhead."""
        start = time.monotonic_ns()
        try:
            yield
        finally:
            with self._lock:
                self._overhead_ns += time.monotonic_ns() - start

    def stamp(
        self, stats: EngineStats | None, requests: Requests, *, closed: bool = False
    ) -> Stamp:
        """The evidence now. ``stats`` must be read before, so that busy time is inside it."""
        with self._lock:
            seq = self._seq
            self._seq += 1
            alive_ns, busy_ns = self.elapsed_ns, stats.busy_ns if stats else 0
            lifetime_ns, overhead_ns = alive_ns, self._overhead_ns
            if self._servers is ServerBilling.OWNED:
                overhead_ns *= self._devices
                # servers that were busier than their devices lived have more of them than was said
                lifetime_ns = max(alive_ns * self._devices, busy_ns)
            elif self._servers is ServerBilling.SHARED:
                lifetime_ns, overhead_ns = busy_ns, 0
            return Stamp(
                worker=self._worker,
                seq=seq,
                run=self._run,
                node=self._node,
                gpus=self._gpus,
                price=self._price,
                started_at=self._started_at,
                lifetime_ns=lifetime_ns,
                busy_ns=busy_ns,
                overhead_ns=overhead_ns,
                requests=requests,
                ticks=stats.ticks if stats else 0,
                occupied=stats.occupied if stats else 0,
                offered=stats.offered if stats else 0,
                other_shapes=stats.other_shapes if stats else 0,
                starved=stats.starved if stats else 0,
                closed=closed,
                alive_ns=None if self._servers is None else alive_ns,
                estimated_ns=stats.estimated_ns if stats else 0,
            )


def persist(store: Store, stamp: Stamp) -> None:
    """Write a stamp where the ledger finds it, in the place of the worker's one before."""
    store.put(layout.stamp(stamp.worker), to_json(stamp))
