"""A page looked at in a real browser: Chromium without a window, by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
_DEADLINE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look found: the script's value, a picture (PNG), the URLs that the page asked for and
    what the browser complained of."""

    value: Any
    picture: bytes
    requested: tuple[str, ...]
    complaints: tuple[str, ...]


def look(page: Path, script: str, *, width: int, dark: bool, height: int = 900) -> Seen:
    """Open a local page in a window of this size and run ``script``, an expression, in it."""
    with _chromium() as port:
        return asyncio.run(_look(port, page, script, width=width, height=height, dark=dark))


@contextmanager
def _chromium() -> Iterator[int]:
    """A fresh browser and the port that it listens on."""
    assert CHROMIUM is not None, "the caller skips without one"
    # it may still write when it is asked to go
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        process = subprocess.Popen(
            [CHROMIUM, *options, "--remote-debugging-port=0", f"--user-data-dir={profile}"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        try:
            yield _port(process.stderr)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def _port(lines: Any) -> int:
    """Chromium says where it listens as soon as it does."""
    said = []
    for line in lines:
        said.append(line)
        if "DevTools listening on ws://" in line:
            return int(line.split("ws://")[1].split("/")[0].rsplit(":", 1)[1])
    raise AssertionError(f"chromium did not start: {''.join(said)[-2000:]}")


async def _look(port: int, page: Path, script: str, *, width: int, height: int, dark: bool) -> Seen:
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as made:
            address = (await made.json(content_type=None))["webSocketDebuggerUrl"]
        async with session.ws_connect(address, max_msg_size=0) as socket:
            tab = _Tab(socket)
            return await asyncio.wait_for(
                tab.look(page, script, width=width, height=height, dark=dark), _DEADLINE_S
            )


class _Tab:
    """One tab: commands with their answers, and the events that come between."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    async def look(self, page: Path, script: str, *, width: int, height: int, dark: bool) -> Seen:
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self._ask(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._ask("Emulation.setEmulatedMedia", features=[scheme])
        await self._ask("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(await self._socket.receive_json())
        value = await self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in value, value
        whole = await self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        return Seen(
            value=value["result"]["value"],
            picture=base64.b64decode(whole["data"]),
            requested=tuple(
                event["params"]["request"]["url"]
                for event in self._events
                if event["method"] == "Network.requestWillBeSent"
            ),
            complaints=tuple(
                str(event["params"])
                for event in self._events
                if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
            ),
        )

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)
