"""What is done about a server that does not go along with shared memory, or only now and then."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

from operators.engine import ImageResult
from operators.engines.triton import TritonEngine
from operators.triton_client.memory_owner import FOLDER
from tests.scripted_triton import drain, engine_at, numbers, row
from tests.triton_peer import TritonPeer, refuse

Engines = Callable[..., TritonEngine]
Peers = Callable[..., TritonPeer]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said of shared memory."""
    caplog.set_level(logging.DEBUG, "imagemill")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "imagemill"]


def check(engine: TritonEngine, rows: int = 8) -> None:
    engine.admit([row(number) for number in range(rows)])
    outcomes = drain(engine)
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes), outcomes
    assert numbers(outcomes) == list(range(rows))


def test_a_server_that_sends_images_although_it_has_the_region_is_taken_at_its_word(
    peers: Peers, told: Callable[[], list[str]]
) -> None:
    peer = peers()
    peer.version = "2.51.0"
    engine = engine_at(peer)
    check(engine)
    assert (peer.calls["register"], len(peer.regions)) == (1, 1)
    assert engine.info.shared_memory
    assert told() == [f"images of grpc://{peer.grpc} come through shared memory: {peer.regions[0]}"]
    engine.close()
    assert peer.regions == []


@pytest.mark.parametrize("version", ["2.49.0", "2.50.0", "1.99", "main"])
def test_a_server_that_would_die_of_it_is_not_asked(
    peers: Peers, engines: Engines, told: Callable[[], list[str]], version: str
) -> None:
    peer = peers()
    peer.version = version
    engine = engines(peer)
    check(engine)
    assert not engine.info.shared_memory
    assert (peer.calls["metadata"], peer.calls["register"]) == (1, 0)
    (message,) = told()
    assert message == (
        f"images of grpc://{peer.grpc} travel by gRPC: it is Triton {version}; expected 2.51 or "
        "newer"
    )


@pytest.mark.parametrize("absent", ["memory_owner._KERNEL", "memory_region.FOLDER"])
def test_a_machine_without_shared_memory_has_images_sent(
    peers: Peers,
    engines: Engines,
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    absent: str,
) -> None:
    """As macOS, which has neither /proc nor /dev/shm."""
    monkeypatch.setattr(f"operators.triton_client.{absent}", tmp_path / "absent")
    peer = peers()
    peer.version = "2.51.0"
    engine = engines(peer)
    check(engine)
    assert (engine.info.shared_memory, peer.calls["register"]) == (False, 0)
    (message,) = told()
    assert message.startswith(
        f"images of grpc://{peer.grpc} travel by gRPC: this machine has no shared memory for it "
        f"([Errno 2] No such file or directory: '{tmp_path}/absent"
    )


def test_a_server_that_does_not_know_of_it_is_asked_once(
    peers: Peers, engines: Engines, told: Callable[[], list[str]]
) -> None:
    peer = peers()
    peer.version = "2.51.0"

    def unknown(name: str) -> None:
        if name == "register":
            refuse("UNIMPLEMENTED", "no such thing")

    peer.asked = unknown
    check(engines(peer))
    assert peer.calls["register"] == 1
    assert told() == [f"images of grpc://{peer.grpc} travel by gRPC: no such thing"]


def test_a_server_that_is_silent_when_it_is_asked_is_asked_again_later(
    peers: Peers, engines: Engines, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("operators.triton_client.shared_memory._REST_S", 0.0)
    monkeypatch.setattr("operators.triton_client.shared_memory._CALL_S", 0.1)
    peer = peers()
    peer.version = "2.51.0"
    goes_on = threading.Event()

    def silent(name: str) -> None:
        if name == "register" and peer.calls["register"] == 1:
            goes_on.wait(30)

    peer.asked = silent
    engine = engines(peer)
    check(engine)
    goes_on.set()
    assert peer.calls["register"] > 1
    images = f"images of grpc://{peer.grpc}"
    assert told()[0].startswith(f"{images} travel by gRPC for 0 s: ")
    assert told()[-1].startswith(f"{images} come through shared memory: imagemill-")


def test_an_image_that_is_not_where_it_is_said_to_be_is_asked_for_again_by_grpc(
    peers: Peers, engines: Engines, told: Callable[[], list[str]]
) -> None:
    peer = peers()
    peer.version, peer.writes_nothing = "2.51.0", True
    check(engines(peer))
    assert peer.calls["register"] == 1
    assert told()[1:] == [
        f"images of grpc://{peer.grpc} travel by gRPC: its answer has no image, and none is where "
        "it was to write it"
    ]


def test_no_row_is_to_blame_where_another_server_behind_the_address_has_no_such_region(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operators.triton_client.shared_memory._REST_S", 0.0)
    peer = peers()
    peer.version = "2.51.0"
    with ExitStack() as another:

        def opened_there(name: str) -> None:
            if name == "register":
                files.append(another.enter_context((FOLDER / peer.regions.pop()).open("rb")))

        files: list[BinaryIO] = []
        peer.asked = opened_there
        engine = engine_at(peer)
        check(engine)
        assert engine.stats.estimated_ns == 0, "nothing was lost"
        assert peer.calls["register"] > 1
        engine.close()
        kept = [os.fstat(file.fileno()).st_blocks for file in files]
        assert kept == [0] * len(files), "no memory stays with the one that has the regions"


def test_a_server_that_has_no_region_time_after_time_is_asked_ever_more_rarely(
    peers: Peers, engines: Engines, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("operators.triton_client.shared_memory._REST_S", 0.02)
    peer = peers()
    peer.version = "2.51.0"
    peer.asked = lambda name: peer.regions.clear() if name == "register" else None
    engine = engines(peer)
    until_s = time.monotonic() + 1
    while time.monotonic() < until_s:
        check(engine)
    assert 1 < peer.calls["register"] < 15, "50 times if the pauses did not grow"
    losses = [message for message in told() if "travel by gRPC for" in message]
    assert len(losses) <= peer.calls["register"], "a region is lost once, by many requests"
