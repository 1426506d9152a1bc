"""Servers and engines of tests that ask a Triton peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from operators.engines.triton import TritonEngine
    from tests.triton_peer import TritonPeer


@pytest.fixture
def peers() -> Iterator[Callable[..., TritonPeer]]:
    """Starts servers that do what the test says, until its end."""
    # late: gRPC takes time to import, and few tests need it
    from tests.triton_peer import TritonPeer

    with ExitStack() as running:
        yield lambda **keys: running.enter_context(TritonPeer(**keys))


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TritonEngine]]:
    """Makes engines that are impatient, and closed after the test."""
    from tests.scripted_triton import engines_closed

    monkeypatch.setattr("operators.triton_client.endpoints.LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("operators.triton_client.dispatch.LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("operators.triton_client.keeper._SPREAD_S", 0.02)
    monkeypatch.setattr("operators.triton_client.keeper._LOOK_S", 0.05)
    with engines_closed() as make:
        yield make
