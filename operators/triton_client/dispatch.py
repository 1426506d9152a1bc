"""Who is asked for which image, and what becomes of it: many requests, several servers, one loop.

Owns the fate of each request; whether a server is well is ``keeper``'s to find out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from conf.errors import RowRejected
from operators.engine import ImageFailure, ImageResult
from operators.triton_client import verdicts
from operators.triton_client.endpoints import LONGEST_PAUSE_S, choose, pause_s, rest_s
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.lost_time import LostTime
from operators.triton_client.server import Asked, Doubt, Server
from operators.triton_client.wire import Answer

ALONE_AFTER = 2
"""Deaths of a model after which a request that was there each time is made alone."""
MOST_CRASHES = 4
"""Two of them alone: other workers may have asked the server for what killed it the first time."""
MOST_FAILURES = 3
_NOTHING_LOST = (Cause.ROW, Cause.BUSY)
"""A row's own failure tells its time, and a queue turns requests away before any work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A server's time, and whose image it went into: none of ours for a probe or an answer that
    came too late. ``estimated``: no server told it."""

    device_ns: int
    estimated: bool = False
    work: Asked | None = None
    outcome: ImageResult | ImageFailure | None = None


Deliver = Callable[[Spent | BaseException], None]


class Dispatcher:
    """Keeps requests at the servers until each has its outcome. Only its loop's thread calls it.

    Invariant: a request that was added is in ``_waiting`` or ``_suspects``, at a server (then
    ``call`` is set), resting between two tries, or among a server's doubts, until its outcome is
    delivered or it is gone.

    Args:
        deliver: is given each outcome, all time that servers spent, and what ends everything.
        timeout_s: of one request.
        lost_time: tells what lost answers cost; None: nobody asks, as all time of the servers is
            paid for anyway.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        deliver: Deliver,
        *,
        priority: int,
        timeout_s: float,
        random: Random,
        lost_time: LostTime | None,
    ) -> None:
        self._servers = servers
        self._deliver = deliver
        self._priority = priority
        self._timeout_s = timeout_s
        self._random = random
        self._lost_time = lost_time
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Asked] = deque()
        self._suspects: deque[Asked] = deque()
        self._halted = False
        self._wakes_at_s = 0.0

    def add(self, works: Sequence[Asked]) -> None:
        """Take requests over."""
        self._waiting.extend(works)
        self.pump()

    def drop(self, works: Sequence[Asked]) -> None:
        """Nobody wants these any more; what a server does for them is cancelled."""
        for work in works:
            work.gone = True
            if work.call is not None:
                work.call.cancel()
        self._waiting = deque(work for work in self._waiting if not work.gone)
        self._suspects = deque(work for work in self._suspects if not work.gone)

    async def halt(self) -> None:
        """Ask for nothing more, and cancel what is being made; it waits for ``go_on``."""
        self._halted = True
        calls = [call for server in self._servers for call in server.calls]
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    def go_on(self) -> None:
        """Ask again."""
        self._halted = False
        self.pump()

    def pump(self) -> None:
        """Send what waits to the servers that take it."""
        while not self._halted and (self._suspects or self._waiting):
            alone = bool(self._suspects)
            now_s = self._loop.time()
            found = choose([server.endpoint for server in self._servers], now_s, alone=alone)
            if found is None:
                self._hold_back(now_s)
                return
            work = (self._suspects or self._waiting).popleft()
            server = next(one for one in self._servers if one.endpoint is found)
            self._ask(server, work, now_s, alone=alone)

    def settle(self, server: Server, *, well: bool) -> None:
        """A probe told whether a server is well, and thereby whose fault the doubtful failures
        were: the requests' own if it is."""
        doubts, server.doubts = server.doubts, []
        for doubt in doubts:
            if well:
                self._blame(doubt)
            else:
                self._again(doubt.work)
        self.pump()

    def spent(self, gpu_seconds: float) -> None:
        """A server's time that went into no image of ours."""
        self._deliver(Spent(device_ns=_ns(gpu_seconds)))

    def lost(self, error: BaseException) -> None:
        """Nothing more will come."""
        self._deliver(error)

    def _ask(self, server: Server, work: Asked, now_s: float, *, alone: bool) -> None:
        server.endpoint.in_flight += 1
        server.endpoint.alone = alone
        work.start()
        work.sent_s = None
        work.call = self._loop.create_task(self._answer(server, work))
        work.alone_since_s = now_s if alone else None
        server.calls.add(work.call)
        # not in a coroutine of ours: one that is cancelled before it begins never runs
        work.call.add_done_callback(partial(self._done, server, work, now_s))

    def _hold_back(self, now_s: float) -> None:
        for server in self._servers:
            server.held_back |= server.endpoint.healthy
        rest = rest_s([server.endpoint for server in self._servers], now_s)
        if rest is not None and self._wakes_at_s <= now_s:
            self._wakes_at_s = now_s + rest
            self._loop.call_later(rest, self.pump)

    def _done(
        self, server: Server, work: Asked, began_s: float, call: asyncio.Task[Answer]
    ) -> None:
        """A request's stay at a server is over."""
        server.calls.discard(call)
        server.endpoint.in_flight -= 1
        server.endpoint.alone = False
        alone = work.alone_since_s is not None
        work.call = work.alone_since_s = None
        if call.cancelled():
            self._lose(work)
            self._again(work)
            return
        error = call.exception()
        if isinstance(error, ServerError) and error.cause not in _NOTHING_LOST:
            self._lose(work)
        if error is None:
            self._made(server, work, call.result(), began_s)
        elif isinstance(error, ServerError):
            self._failed(server, work, error, began_s, alone=alone)
        else:
            self._deliver(error)
        self.pump()

    async def _answer(self, server: Server, work: Asked) -> Answer:
        work.sent_s = self._loop.time()
        return await server.ask(work.request, priority=self._priority, timeout_s=self._timeout_s)

    def _lose(self, work: Asked) -> None:
        """No answer told the time that went into a request."""
        if self._lost_time is None:
            return
        lost_ns = self._lost_time.estimate_ns(work.request, stay_s=self._stay_s(work))
        if lost_ns:
            self._deliver(Spent(device_ns=lost_ns, estimated=True))

    def _stay_s(self, work: Asked) -> float:
        return 0.0 if work.sent_s is None else self._loop.time() - work.sent_s

    def _made(self, server: Server, work: Asked, answer: Answer, began_s: float) -> None:
        """An image came, unless another model made it than the job's."""
        if server.is_other(answer.revision):
            self._other(server, work, answer.revision, answer.gpu_seconds)
            return
        server.answered(sent_s=began_s, now_s=self._loop.time())
        server.rows_seen.append(answer.batch_rows)
        work.device_ns = _ns(answer.gpu_seconds)
        if self._lost_time is not None:
            self._lost_time.answered(
                work.request, device_ns=work.device_ns, stay_s=self._stay_s(work)
            )
        work.took_part(rows=answer.batch_rows)
        result = work.result(answer.pixels, truncated_tokens=answer.truncated_tokens)
        self._deliver(Spent(device_ns=work.device_ns, work=work, outcome=result))

    def _failed(
        self, server: Server, work: Asked, error: ServerError, began_s: float, *, alone: bool
    ) -> None:
        now_s = self._loop.time()
        match error.cause:
            case Cause.ROW:
                assert error.row is not None
                if server.is_other(error.row.revision):
                    self._other(server, work, error.row.revision, error.row.gpu_seconds)
                    return
                server.answered(sent_s=began_s, now_s=now_s)
                work.device_ns = _ns(error.row.gpu_seconds)
                self._reject(work, verdicts.own_failure(error.row))
            case Cause.TOO_LARGE:
                name = server.endpoint.name
                self._reject(work, verdicts.too_large(name, work.request, error.said))
            case Cause.BUSY:
                self._refused(server, error.said, now_s)
                self._again(work)
            case Cause.UNREACHABLE | Cause.REFUSED | Cause.NOT_LOADED:
                self._ill(server, error.said)
                self._again(work)
            case Cause.DEAD_MODEL:
                server.broken = error.said
                self._ill(server, error.said)
                self._crashed(work, error.said, alone=alone)
            case Cause.TIMED_OUT if not alone and server.served_from_s >= began_s:
                # it is well: it has made another one since
                work.suspect = True
                self._again(work)
            case _:
                server.doubts.append(
                    Doubt(work=work, cause=error.cause, said=error.said, alone=alone)
                )
                self._ill(server, error.said)

    def _crashed(self, work: Asked, said: str, *, alone: bool) -> None:
        """The model died while it was asked for this. One that was alone waits for a while of
        chance: what other workers asked for at that moment comes back with it otherwise."""
        work.crashes += 1
        work.suspect = work.crashes >= ALONE_AFTER
        if work.crashes >= MOST_CRASHES:
            self._reject(work, verdicts.killed(work.crashes, said))
        elif alone:
            pause = self._random.uniform(0, LONGEST_PAUSE_S)
            self._loop.call_later(pause, self._again, work)
        else:
            self._again(work)

    def _other(self, server: Server, work: Asked, revision: str | None, gpu_seconds: float) -> None:
        """Another model answered, which somebody put in the place of the job's."""
        self.spent(gpu_seconds)
        self._ill(server, server.other(revision))
        self._again(work)

    def _refused(self, server: Server, said: str, now_s: float) -> None:
        """It is too busy. All that it refuses at about the same time count once."""
        server.said = said
        if now_s < server.endpoint.rests_until_s:
            return
        server.endpoint.refused(now_s, self._random)
        if server.search is not None:
            server.endpoint.limit = server.search.refused()

    def _ill(self, server: Server, said: str) -> None:
        server.said = said
        if server.endpoint.healthy:
            server.endpoint.failed(self._loop.time())
            server.trouble.set()

    def _blame(self, doubt: Doubt) -> None:
        """The request failed on a server that is well. One that timed out may have waited for
        others of ours all the time, unless it was alone."""
        work = doubt.work
        if doubt.cause is Cause.TIMED_OUT:
            work.suspect = True
            if doubt.alone:
                self._reject(work, verdicts.timed_out(self._timeout_s))
            else:
                self._again(work)
            return
        work.failures += 1
        if work.failures >= MOST_FAILURES:
            self._reject(work, verdicts.failed(work.failures, doubt.said))
        else:
            self._loop.call_later(pause_s(work.failures, self._random), self._again, work)

    def _again(self, work: Asked) -> None:
        """Ask for it again as soon as a server takes it, before those that were never asked for."""
        if work.gone:
            return
        (self._suspects if work.suspect else self._waiting).appendleft(work)
        self._loop.call_soon(self.pump)

    def _reject(self, work: Asked, error: RowRejected) -> None:
        self._deliver(Spent(device_ns=work.device_ns, work=work, outcome=work.failure(error)))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
