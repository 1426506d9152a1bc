"""One of the servers that make a worker's images: its connection, its health, what it is asked now."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from operators.request import Request
from operators.triton_client.client import TritonClient
from operators.triton_client.concurrency import BatchHistogram, InFlightSearch
from operators.triton_client.endpoints import Endpoint
from operators.triton_client.errors import Cause
from operators.triton_client.server_model import ServerModel
from operators.triton_client.wire import Answer
from operators.work import Work


@dataclass(slots=True, kw_only=True, eq=False)
class Asked(Work):
    """A request inside. ``crashes`` counts the times that the model died while it was asked for,
    ``failures`` those for which nobody else is to blame.

    ``call`` is set while a server is asked for it; ``gone``: nobody wants it any more.
    """

    crashes: int = 0
    failures: int = 0
    call: asyncio.Task[Answer] | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A request that failed on a server which may be ill: whose fault it was, a probe tells. It was
    there from ``began_s`` to ``ended_s``."""

    work: Asked
    cause: Cause
    said: str
    began_s: float
    ended_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class Server:
    """See the module. ``expected`` is what the model must be for the whole job.

    ``version`` is the model's as the server counts, None until it made an image. ``trouble`` is set
    when somebody should look after it. ``said`` is the last error, for people, and ``cause`` its
    cause. ``held_back``: requests waited though it was well. ``rows_seen`` are the batches that its
    images shared. ``served_from_s``: it answered a request that was sent then.
    """

    client: TritonClient
    endpoint: Endpoint
    expected: ServerModel
    search: InFlightSearch | None
    histogram: BatchHistogram = field(default_factory=BatchHistogram)
    version: str | None = None
    trouble: asyncio.Event = field(default_factory=asyncio.Event)
    said: str = ""
    cause: Cause | None = None
    held_back: bool = False
    served_from_s: float = -math.inf
    rows_seen: list[int] = field(default_factory=list)
    calls: set[asyncio.Task[Answer]] = field(default_factory=set)
    doubts: list[Doubt] = field(default_factory=list)

    async def ask(self, request: Request, *, priority: int, timeout_s: float) -> Answer:
        """Have an image made.

        Raises:
            ServerError: why there is none.
        """
        return await self.client.infer(
            request, streams=self.expected.streams, priority=priority, timeout_s=timeout_s
        )

    def answered(self, *, sent_s: float, now_s: float) -> None:
        """It answered a request: with an image, or why there is none."""
        self.endpoint.heard(now_s)
        self.served_from_s = max(self.served_from_s, sent_s)

    def leave(self) -> None:
        """Ask it for nothing of what it was asked; the requests go elsewhere."""
        for call in self.calls:
            call.cancel()
