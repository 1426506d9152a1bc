"""An S3 proxy on loopback that forwards each request unchanged, or does what a rule says.

SigV4 signs the Host header as the client sent it, so that headers and body go on as they came. Owns
its thread and its sockets; what to do is ``rules``', what was seen is ``traffic``'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import threading
from typing import Self
from urllib.parse import unquote

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from tests.chaos.rules import (
    Action,
    Answer,
    Asked,
    Delay,
    Duplicate,
    Hold,
    LoseReply,
    LoseRequest,
    RuleBoard,
)
from tests.chaos.traffic import Seen, Traffic

STAGE = "/-/stage/"
"""Paths below this are not the store's: an instrumented process says here which stage it is in."""
_HOP_BY_HOP = {"connection", "keep-alive", "expect", "transfer-encoding", "proxy-connection"}
_LOOK_EVERY_S = 0.01
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{0}</Code><Message>{0}</Message></Error>'
)


class Proxy:
    """A context manager; ``rules`` and ``traffic`` may be used from any thread.

    Args:
        upstream: the store's endpoint, ``http://host:port``.
    """

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        self.rules = RuleBoard(seed)
        self.traffic = Traffic()
        self._upstream = upstream
        self._port = 0
        self._numbers = itertools.count(1)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="chaos proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"
        return self

    def __exit__(self, *_error: object) -> None:
        self.rules.clear()
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        # no connection is used twice: a stale one would be tried again unseen, and land twice
        connector = TCPConnector(limit=0, force_close=True)
        async with ClientSession(
            connector=connector, auto_decompress=False, timeout=ClientTimeout(total=None)
        ) as self._session:
            runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.5)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            (self._port,) = {address[1] for address in runner.addresses}
            self._ready.set()
            await self._over.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            asked = await self._read(request)
        except OSError:  # the client died with the request half sent
            return _reset(request)
        action = self.rules.action_for(asked)
        status: int | None = None
        reply: web.StreamResponse | None = None
        try:
            if request.raw_path.startswith(STAGE):
                await self._before(asked, action)
                return _error(action) if isinstance(action, Answer) else web.Response(status=204)
            if await self._before(asked, action):
                reply = await self._forward(request, asked.body)
                if isinstance(action, Duplicate):
                    self._note(asked, reply.status, action)
                    reply = await self._forward(request, asked.body)
                status = reply.status
            elif isinstance(action, Answer):
                reply = _error(action)
        except ClientError:
            reply = None
        finally:
            self._note(asked, status, action)
        if reply is None or isinstance(action, LoseReply):
            return _reset(request)
        return reply

    async def _read(self, request: web.BaseRequest) -> Asked:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = request.raw_path.partition("?")
        peer = request.transport.get_extra_info("peername") if request.transport else ("", 0)
        key = path if path.startswith(STAGE) else unquote(path).lstrip("/").partition("/")[2]
        return Asked(
            number=next(self._numbers),
            method=request.method,
            key=key,
            query=query,
            body=await request.content.read(),
            if_absent="If-None-Match" in request.headers,
            client=(peer[0], peer[1]),
        )

    async def _before(self, asked: Asked, action: Action | None) -> bool:
        """What comes before forwarding; returns whether to forward."""
        match action:
            case Delay():
                await asyncio.sleep(action.seconds)
            case Hold():
                action.catch(asked)
                while action.decided is None:
                    await asyncio.sleep(_LOOK_EVERY_S)
                return action.decided
            case Answer() | LoseRequest():
                return False
        return True

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _HOP_BY_HOP
        )
        async with self._session.request(
            request.method,
            URL(f"{self._upstream}{request.raw_path}", encoded=True),
            headers=headers,
            data=io.BytesIO(body) if body else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as found:
            content = await found.read()
            kept = CIMultiDict(
                (name, value)
                for name, value in found.headers.items()
                if name.lower() not in _HOP_BY_HOP
            )
            return web.Response(status=found.status, headers=kept, body=content or None)

    def _note(self, asked: Asked, status: int | None, action: Action | None) -> None:
        self.traffic.add(
            Seen(
                number=asked.number,
                method=asked.method,
                key=asked.key,
                query=asked.query,
                sha256=hashlib.sha256(asked.body).hexdigest(),
                status=status,
                action=type(action).__name__ if action else "",
            )
        )


def _error(answer: Answer) -> web.Response:
    text = _ERROR.format(answer.code)
    return web.Response(status=answer.status, text=text, content_type="application/xml")


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """Close the client's connection without a word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
