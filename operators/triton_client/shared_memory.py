"""Shared memory between this process and one Triton server, as long as the server goes along.

Whether it does is found out by asking it to open a region, which only one can that sees the same
/dev/shm. Otherwise images travel by gRPC; nothing else changes, so that only who asks is told.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from operators.triton_client.client import TritonClient
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.memory_owner import MemoryOwner, is_abandoned, remove_abandoned
from operators.triton_client.memory_region import REGION_BYTES, MemoryRegion, Place

log = logging.getLogger("imagemill")
_OLDEST = (2, 51)
"""Servers before 2.50 unmap a region under requests that still write to it, and die of that; 2.50
was the first that counts those requests, and miscounted some."""
_CALL_S = 2.0
_CLOSE_S = 5.0
"""How long a server that still works on what was given up is waited for at the end."""
_REST_S, _LONGEST_REST_S = 5.0, 600.0
"""After a server had a region no more or was silent, twice as long each time: it may be several
behind a load balancer, and what lies before it may swallow what it does not know."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_FINISHED = (Cause.ROW, Cause.BUSY, Cause.SHARED_MEMORY)
"""Answers after which the server has nothing left to write."""
_SILENT = (Cause.UNREACHABLE, Cause.TIMED_OUT)


class SharedMemory:
    """Lends a place for each image of one server. Used by one loop; ``close`` must be awaited.

    A region is left when it is used up, when a request that has a place there went unanswered, and
    when the server has it no more. It is closed and taken off the server when its last place is
    back; a server that still works on a request refuses that, and is asked until it does not.

    Args:
        wanted: false: all images travel by gRPC.
    """

    def __init__(self, client: TritonClient, *, wanted: bool) -> None:
        self._client = client
        self._off = not wanted
        self._owner: MemoryOwner | None = None
        self._region: MemoryRegion | None = None
        self._opening = asyncio.Lock()
        self._rest_s = _REST_S
        self._rests_until_s = 0.0
        self._leaving: dict[str, asyncio.Task[None]] = {}

    @property
    def shared(self) -> bool:
        """Whether the server has a region of ours now."""
        return self._region is not None

    @asynccontextmanager
    async def place(self, size: int) -> AsyncIterator[Place | None]:
        """Room for an image of so many bytes, while it is asked for; None: it travels by gRPC."""
        place = await self._lend(size)
        if place is None:
            yield None
            return
        answered = False
        try:
            yield place
            answered = True
        except ServerError as error:
            answered = error.cause in _FINISHED
            if error.cause is Cause.SHARED_MEMORY:
                if place.region is self._region:
                    self._rest(error.said)
                self._leave(place.region)
            elif error.cause is Cause.UNWRITTEN:
                self._stop(error.said)
            raise
        finally:
            place.region.take_back(place, answered=answered)
            if answered:
                self._settle(place.region)
            else:
                self._leave(place.region)

    async def close(self) -> None:
        """Take our regions off the server. No place may be lent."""
        self._off = True
        if self._region is not None:
            self._leave(self._region)
        leaving, self._leaving = self._leaving, {}
        for task in leaving.values():
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*(self._take_off(name, ending=True) for name in leaving))
        if self._owner is not None:
            self._owner.close()

    async def _lend(self, size: int) -> Place | None:
        if self._off or size > REGION_BYTES:
            return None
        async with self._opening:
            if self._region is not None and not self._region.holds(size):
                self._leave(self._region)
            if self._region is None and not self._off and self._rests_until_s <= _now_s():
                self._region = await self._open()
            return None if self._region is None else self._region.lend(size)

    async def _open(self) -> MemoryRegion | None:
        """A region that the server has opened, too."""
        try:
            owner = self._owner or await self._begin()
            region = MemoryRegion(owner.name())
        except OSError as error:
            self._stop(f"this machine has no shared memory for it ({error})")
            return None
        except ServerError as error:
            self._refused(error)
            return None
        try:
            await self._client.register(region.name, REGION_BYTES, timeout_s=_CALL_S)
        except BaseException as error:
            # it may have opened it all the same
            self._settle(region)
            if not isinstance(error, ServerError):
                raise
            self._refused(error)
            return None
        finally:
            region.hide()
        log.debug(
            "images of %s come through shared memory: %s",
            self._client.address,
            region.name,
            extra={"event": "shared_memory"},
        )
        return region

    async def _begin(self) -> MemoryOwner:
        """Remove what dead processes left here and on the server.

        Raises:
            OSError: this machine has no shared memory.
            ServerError: the server has none, or none that is safe.
        """
        version = await self._client.version(timeout_s=_CALL_S)
        if _numbers(version) < _OLDEST:
            expected = ".".join(map(str, _OLDEST))
            raise ServerError(
                Cause.SHARED_MEMORY, f"it is Triton {version}; expected {expected} or newer"
            )
        remove_abandoned()
        for name in await self._client.regions(timeout_s=_CALL_S):
            if is_abandoned(name):
                self._take_off_soon(name)
        self._owner = MemoryOwner()
        return self._owner

    def _refused(self, error: ServerError) -> None:
        if error.cause in _SILENT:
            self._rest(error.said)
        else:
            self._stop(error.said)

    def _stop(self, why: str) -> None:
        """From now on all images travel by gRPC."""
        self._off = True
        log.debug(
            "images of %s travel by gRPC: %s",
            self._client.address,
            why,
            extra={"event": "no_shared_memory"},
        )

    def _rest(self, said: str) -> None:
        self._rests_until_s = _now_s() + self._rest_s
        log.debug(
            "images of %s travel by gRPC for %g s: %s",
            self._client.address,
            self._rest_s,
            said,
            extra={"event": "shared_memory_lost"},
        )
        self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)

    def _leave(self, region: MemoryRegion) -> None:
        """Lend nothing there any more."""
        if region is self._region:
            self._region = None
        self._settle(region)

    def _settle(self, region: MemoryRegion) -> None:
        """Let go of a region that was left, when its last place is back."""
        if region is self._region or region.out:
            return
        region.close()
        self._take_off_soon(region.name)

    def _take_off_soon(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._take_off(name, ending=False))
        self._leaving[name] = task
        task.add_done_callback(lambda _: self._leaving.pop(name, None))

    async def _take_off(self, name: str, *, ending: bool) -> None:
        """Have the server close a region, as soon as nothing there writes to it."""
        passing = (Cause.SHARED_MEMORY,) if ending else (Cause.SHARED_MEMORY, *_SILENT)
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._client.unregister(name, timeout_s=_CALL_S)
            except ServerError as error:
                if error.cause not in passing:
                    return
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 51, 0) of 2.51.0; nothing of what is no such version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()
