"""Looks after one server: whether it is well, what brings it back, how much it is asked at a time.

That a server and its model say they are ready means little: when the model's process has died they
go on saying so. Only an image that comes back tells.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from random import Random

from conf.errors import ServerUnfit
from operators.request import Request
from operators.triton_client.dispatch import Dispatcher
from operators.triton_client.endpoints import pause_s
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.server import Server
from operators.triton_client.verdicts import too_large_words

log = logging.getLogger(__name__)
_LOOK_S = 2.0
_QUIET_S = 10.0
"""A server that has requests and said nothing for so long is asked whether it lives."""
_LIVE_S = 10.0
_LOAD_S = 600.0
_BEFORE_LOADING = 2
"""Failures before a model is loaded: another worker may have had it loaded meanwhile."""
_SPREAD_S = 2.0
"""Workers that find a model dead at the same moment have it loaded at moments so far apart, so that
most of them find it being loaded by then."""
_BEGUN_ANEW = (Cause.NOT_LOADED, Cause.DEAD_MODEL, Cause.TIMED_OUT, Cause.FAILED)


class Keeper:
    """``run`` goes on until it is cancelled.

    Args:
        probe: a quick image, asked for to see whether any comes.
    """

    def __init__(
        self,
        server: Server,
        dispatcher: Dispatcher,
        probe: Request,
        *,
        priority: int,
        timeout_s: float,
        random: Random,
    ) -> None:
        self._server = server
        self._dispatcher = dispatcher
        self._probe = probe
        self._priority = priority
        self._timeout_s = timeout_s
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._not_loaded = ""

    async def run(self) -> None:
        """Look at it now and then, and at once when something is wrong."""
        server = self._server
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await server.trouble.wait()
            server.trouble.clear()
            try:
                if server.endpoint.healthy:
                    await self._look()
                well = server.endpoint.healthy or await self._mend()
                self._dispatcher.settle(server, well=well)
            except Exception as error:  # noqa: BLE001 - a task's boundary: it becomes an event
                self._dispatcher.lost(error)
                return

    async def _look(self) -> None:
        endpoint = self._server.endpoint
        silent_s = self._loop.time() - endpoint.heard_at_s
        if endpoint.in_flight and silent_s > _QUIET_S:
            try:
                await self._server.client.live(timeout_s=_LIVE_S)
            except ServerError as error:
                self._ill(error)
                self._server.leave()
                return
        await self._measure()

    async def _measure(self) -> None:
        """See how full its batches were, and ask for more at a time where that may fill them."""
        server = self._server
        reached, server.held_back = server.held_back, False
        seen, server.rows_seen = server.rows_seen, []
        if server.search is None or not seen:
            return
        if not server.search.wants_to_know(reached=reached):
            return
        mean: float | None = sum(seen) / len(seen)
        if not server.expected.streams:
            try:
                counts = await server.client.batches(timeout_s=_LIVE_S)
            except ServerError:
                return
            mean = server.histogram.mean_since(counts)
        if mean is not None:
            server.endpoint.limit = server.search.observe(mean)
            self._dispatcher.pump()

    async def _mend(self) -> bool:
        """Try until it makes an image again; its requests go elsewhere meanwhile. False: it makes
        some, but it could not be told whether it would make ours."""
        server, endpoint = self._server, self._server.endpoint
        gone = False
        self._not_loaded = ""
        while not endpoint.healthy:
            try:
                await self._see_an_image()
            except (ServerError, ServerUnfit) as error:
                if endpoint.healthy:
                    break  # it has made an image meanwhile
                if isinstance(error, ServerError) and error.cause is Cause.BUSY:
                    endpoint.crowded(self._loop.time(), self._random)
                    return False
                self._ill(error)
                if not gone:
                    gone = True
                    log.warning(
                        "%s is left out: %s",
                        endpoint.name,
                        server.said,
                        extra={"event": "server_ill"},
                    )
                server.leave()
                self._dispatcher.settle(server, well=False)
                if endpoint.failures > _BEFORE_LOADING:
                    await self._load(error)
                await asyncio.sleep(pause_s(endpoint.failures, self._random))
        if gone:
            log.warning("%s is back", endpoint.name, extra={"event": "server_well"})
        return True

    async def _see_an_image(self) -> None:
        """The server has the very model of the job, whole, and makes an image.

        Raises:
            ServerError: it does not.
            ServerUnfit: it has another model.
        """
        server = self._server
        await server.client.live(timeout_s=_LIVE_S)
        await server.check()
        made = await server.client.made(timeout_s=_LIVE_S)
        if made < server.made:
            server.broken = None
        server.made = made
        sent_s = self._loop.time()
        try:
            answer = await server.ask(
                self._probe, priority=self._priority, timeout_s=self._timeout_s
            )
            revision: str | None = answer.revision
            gpu_seconds = answer.gpu_seconds
        except ServerError as error:
            if error.cause is Cause.TIMED_OUT:
                await self._raise_if_crowded(made)
            if error.row is None:
                raise
            revision, gpu_seconds = error.row.revision, error.row.gpu_seconds
        self._dispatcher.spent(gpu_seconds)
        if server.is_other(revision):
            raise ServerUnfit(server.other(revision))
        if server.broken is not None and server.expected.instances > 1:
            # one of those that live made it; the dead one goes on taking requests
            raise ServerError(Cause.DEAD_MODEL, server.broken)
        server.broken = None
        server.answered(sent_s=sent_s, now_s=self._loop.time())

    async def _raise_if_crowded(self, made: int) -> None:
        """A server that makes images all the time only lets ours wait; its model must not be loaded
        anew for that."""
        if await self._server.client.made(timeout_s=_LIVE_S) != made:
            raise ServerError(
                Cause.BUSY,
                f"it makes others' images, and ours waited for triton.timeout_s="
                f"{self._timeout_s:g}",
            )

    async def _load(self, error: ServerError | ServerUnfit) -> None:
        """Have a model that is not there loaded, and one that died or hangs begun anew, unless
        somebody does or did that already; servers in explicit mode do it."""
        client = self._server.client
        if isinstance(error, ServerUnfit) or error.cause not in _BEGUN_ANEW:
            return
        await asyncio.sleep(self._random.uniform(0, _SPREAD_S))
        try:
            if self._server.endpoint.healthy or await client.changing(timeout_s=_LIVE_S):
                return
            if error.cause is Cause.NOT_LOADED:
                await client.load(timeout_s=_LOAD_S)
            elif await self._serves_nobody(error.cause):
                await client.load_anew(timeout_s=_LOAD_S)
                self._server.broken = None
                log.warning(
                    "%s: %s was loaded anew",
                    client.address,
                    client.model,
                    extra={"event": "reload"},
                )
        except ServerError as refused:
            self._not_loaded = (
                f"; loading it anew failed: {refused.said}; restart the server, or start it with "
                "--model-control-mode=explicit"
            )
            self._server.said = error.said + self._not_loaded

    async def _serves_nobody(self, cause: Cause) -> bool:
        """Whether the model is as it was when ours failed: neither begun anew by another, nor, with
        all its processes alive, making the images of others."""
        made = await self._server.client.made(timeout_s=_LIVE_S)
        before = self._server.made
        return made >= before if cause is Cause.DEAD_MODEL else made == before

    def _ill(self, error: ServerError | ServerUnfit) -> None:
        if isinstance(error, ServerUnfit):
            self._server.said, self._server.cause = str(error), Cause.UNFIT
        else:
            said = error.said + self._not_loaded
            self._server.said, self._server.cause = said, error.cause
            if error.cause is Cause.TOO_LARGE:
                self._server.said = too_large_words("it", self._probe, error.said)
        self._server.endpoint.failed(self._loop.time())
