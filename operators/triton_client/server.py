"""One of the servers that make a worker's images: its connection, health and requests."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from functools import partial

from conf.errors import ServerUnfit
from operators.request import Request
from operators.triton_client.client import TritonClient
from operators.triton_client.concurrency import BatchHistogram, InFlightSearch
from operators.triton_client.endpoints import Endpoint
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.server_model import ServerModel, read_model
from operators.triton_client.shared_memory import SharedMemory
from operators.triton_client.wire import Answer
from operators.work import Work

_CONFIG_S = 10.0


@dataclass(slots=True, kw_only=True, eq=False)
class Asked(Work):
    """A request inside. ``crashes`` counts the times that the model died while it was asked for,
    ``failures`` those for which nobody else is to blame. A ``suspect`` is asked for alone: since
    ``alone_since_s``, while it is.

    ``call`` is set while a server is asked for it, ``sent_s`` is when it was sent; ``gone``: nobody
    wants it any more.
    """

    crashes: int = 0
    failures: int = 0
    suspect: bool = False
    alone_since_s: float | None = None
    call: asyncio.Task[Answer] | None = None
    sent_s: float | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A request that failed on a server which may be ill: whose fault it was, a probe tells."""

    work: Asked
    cause: Cause
    said: str
    alone: bool


@dataclass(slots=True, kw_only=True, eq=False)
class Server:
    """See the module. ``expected`` is what the model must be for the whole job.

    ``broken``: what it said when a process of its model died, while it was not seen whole since;
    others of its processes may go on. ``made`` is the last count of its images that it told: a
    model that is begun anew counts anew. ``trouble`` is set when somebody should look after it.
    ``said`` is the last error, for people, and ``cause`` its cause. ``held_back``: requests waited
    though it was well. ``rows_seen`` are the batches that its images shared. ``served_from_s``: it
    answered a request that was sent then.
    """

    client: TritonClient
    memory: SharedMemory
    endpoint: Endpoint
    expected: ServerModel
    search: InFlightSearch | None
    histogram: BatchHistogram = field(default_factory=BatchHistogram)
    broken: str | None = None
    made: int = 0
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
        asked = partial(
            self.client.infer,
            request,
            streams=self.expected.streams,
            priority=priority,
            timeout_s=timeout_s,
        )
        try:
            async with self.memory.place(3 * request.width * request.height) as place:
                return await asked(place)
        except ServerError as error:
            if error.cause is not Cause.SHARED_MEMORY:
                raise
        # it has begun anew, or another server of the same address answered
        return await asked(None)

    async def close(self) -> None:
        """Leave it, when nothing is asked for any more."""
        await self.memory.close()
        await self.client.close()

    async def check(self) -> None:
        """See that it has the very model of the job, and how it wants to be asked for it by now.

        Raises:
            ServerError: it does not answer.
            ServerUnfit: it has another one.
        """
        found = read_model(
            await self.client.config(timeout_s=_CONFIG_S), server=str(self.client.address)
        )
        if found.identity != self.expected.identity:
            raise ServerUnfit(f"it has {found} now; this job began with {self.expected}")
        self.expected = found

    def is_other(self, revision: str | None) -> bool:
        """Whether an answer is another model's than the job's; None: it was no model's."""
        return revision is not None and revision != self.expected.revision

    def other(self, revision: str | None) -> str:
        """What is said of such an answer."""
        return f"its answer is of revision {revision}; this job began with {self.expected}"

    def answered(self, *, sent_s: float, now_s: float) -> None:
        """It answered a request: with an image, or why there is none."""
        if self.broken is None:
            self.endpoint.heard(now_s)
        self.served_from_s = max(self.served_from_s, sent_s)

    def leave(self) -> None:
        """Ask it for nothing of what it was asked; the requests go elsewhere."""
        for call in self.calls:
            call.cancel()
