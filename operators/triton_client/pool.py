"""A worker's servers as one: entered together, looked after, given up together. On one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

from conf.errors import ServerLost, ServerUnfit
from conf.triton_config import TritonConfig, addresses_of
from operators.request import Request
from operators.triton_client.access import Access
from operators.triton_client.client import TritonClient
from operators.triton_client.concurrency import InFlightSearch
from operators.triton_client.dispatch import Deliver, Dispatcher
from operators.triton_client.endpoints import Endpoint, pause_s
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.inspection import inspect_all
from operators.triton_client.keeper import Keeper
from operators.triton_client.lost_time import LostTime
from operators.triton_client.server import Server
from operators.triton_client.server_model import ServerModel, check_priority
from operators.triton_client.shared_memory import SharedMemory

_WELL_S = 30.0
"""How long servers that answer may take to make a first image, loading the model anew included."""
_FOR_GOOD = (Cause.TOO_LARGE, Cause.REFUSED, Cause.UNFIT)
_LOOK_S = 0.5
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How servers are asked: for ``model`` of their repositories. ``probe`` is a quick image, asked
    for to see whether any comes."""

    config: TritonConfig
    access: Access
    model: str
    priority: int
    probe: Request


class Pool:
    """Servers with one model. ``open`` makes it; ``close`` must be awaited."""

    def __init__(self, servers: Sequence[Server], dispatcher: Dispatcher) -> None:
        self.servers = servers
        self.dispatcher = dispatcher
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, terms: Terms, deliver: Deliver, *, patience_s: float) -> Pool:
        """Enter the servers and see that at least one makes images; the others are tried on.

        Args:
            patience_s: how long servers that do not answer are tried.

        Raises:
            ServerLost: none does.
            ServerUnfit: a server has no such model, or not one that fits.
        """
        random = Random()
        addresses = addresses_of(terms.config)
        clients = [TritonClient(address, terms.model, terms.access) for address in addresses]
        async with AsyncExitStack() as unless_found:
            for client in clients:
                unless_found.push_async_callback(client.close)
            models = await _find(clients, random, patience_s)
            for client, model in zip(clients, models, strict=True):
                check_priority(terms.priority, model, server=str(client.address))
            unless_found.pop_all()
        servers = [
            _server(client, model, terms.config)
            for client, model in zip(clients, models, strict=True)
        ]
        dispatcher = Dispatcher(
            servers,
            deliver,
            priority=terms.priority,
            timeout_s=terms.config.timeout_s,
            random=random,
            lost_time=None if terms.config.owned else LostTime(),
        )
        pool = cls(servers, dispatcher)
        async with AsyncExitStack() as unless_begun:
            unless_begun.push_async_callback(pool.close)
            await pool._begin(terms, random)
            unless_begun.pop_all()
        return pool

    @property
    def model(self) -> ServerModel:
        """What the servers have."""
        return self.servers[0].expected

    @property
    def devices(self) -> int:
        """How many images' batches run at a time."""
        return sum(server.expected.instances for server in self.servers)

    async def close(self) -> None:
        """Cancel everything and end the connections."""
        await self.dispatcher.halt()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self.servers))

    async def _begin(self, terms: Terms, random: Random) -> None:
        """Have each server probed by its keeper, until one is well."""
        loop = asyncio.get_running_loop()
        for server in self.servers:
            server.endpoint.failed(loop.time())
            server.trouble.set()
            keeper = Keeper(
                server,
                self.dispatcher,
                terms.probe,
                priority=terms.priority,
                timeout_s=terms.config.timeout_s,
                random=random,
            )
            self._tasks.append(asyncio.create_task(keeper.run()))
        began_s = loop.time()
        while not any(server.endpoint.healthy for server in self.servers):
            if all(server.cause in _FOR_GOOD for server in self.servers):
                raise ServerUnfit(f"no Triton server makes an image: {self._said()}")
            # one that has not answered yet may be busy with others' images
            waiting = any(server.cause is None for server in self.servers)
            longest_s = _WELL_S + (terms.config.timeout_s if waiting else 0)
            if loop.time() - began_s > longest_s:
                raise ServerLost(f"no Triton server makes an image: {self._said()}")
            await asyncio.sleep(_POLL_S)
        self._tasks.append(asyncio.create_task(self._watch(terms.config.patience_s)))

    async def _watch(self, patience_s: float) -> None:
        """Give up when no server has been of any use for too long."""
        loop = asyncio.get_running_loop()
        endpoints = [server.endpoint for server in self.servers]
        while min(endpoint.useless_s(loop.time()) for endpoint in endpoints) <= patience_s:
            await asyncio.sleep(_LOOK_S)
        self.dispatcher.lost(
            ServerLost(
                f"no Triton server made an image for triton.patience_s={patience_s:g}: "
                f"{self._said()}"
            )
        )

    def _said(self) -> str:
        return "; ".join(f"{server.client.address}: {server.said}" for server in self.servers)


def _server(client: TritonClient, model: ServerModel, config: TritonConfig) -> Server:
    search = (
        InFlightSearch(max_batch=model.max_batch, instances=model.instances)
        if config.max_in_flight is None
        else None
    )
    limit = search.limit if search is not None else config.max_in_flight
    assert limit is not None
    endpoint = Endpoint(name=str(client.address), limit=limit)
    memory = SharedMemory(client, wanted=config.shared_memory == "auto")
    return Server(client=client, memory=memory, endpoint=endpoint, expected=model, search=search)


async def _find(
    clients: Sequence[TritonClient], random: Random, patience_s: float
) -> list[ServerModel]:
    """The servers' models; of one that does not answer, what another has. At least one does."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    tries = 0
    while True:
        found = await inspect_all(clients)
        models = [one for one in found if isinstance(one, ServerModel)]
        if models:
            return [one if isinstance(one, ServerModel) else models[0] for one in found]
        if loop.time() >= deadline_s:
            break
        await asyncio.sleep(pause_s(tries, random))
        tries += 1
    said = "; ".join(
        f"{client.address}: {error.said}"
        for client, error in zip(clients, found, strict=True)
        if isinstance(error, ServerError)
    )
    refused = all(isinstance(error, ServerError) and error.cause in _FOR_GOOD for error in found)
    question = "" if refused else ". Is it running, and is this its gRPC port?"
    raise ServerLost(f"no Triton server answers: {said}{question}")
