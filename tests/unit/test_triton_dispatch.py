"""What becomes of each request: sent, taken back, asked for again, alone, or given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from operators.engine import ImageFailure, ImageResult
from operators.engines.triton import TritonEngine
from tests.cluster.job_process import wait_until
from tests.scripted_triton import drain, engine_at, numbers, row
from tests.triton_peer import DEAD, TritonPeer, refuse

Engines = Callable[..., TritonEngine]
Peers = Callable[..., TritonPeer]
PATIENCE_S = 20


class Inside:
    """The prompts that a peer is working on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: list[str] = []
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        """Each request in the order of their coming, and what was inside when it came."""

    @contextmanager
    def having(self, prompt: str) -> Iterator[None]:
        with self._lock:
            self.seen.append((prompt, tuple(self._now)))
            self._now.append(prompt)
        try:
            yield
        finally:
            with self._lock:
                self._now.remove(prompt)


def test_what_is_discarded_is_taken_back_from_the_server_and_never_comes(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer, max_in_flight=2)
    free = threading.Event()
    peer.answer = lambda prompt: prompt == "unwanted" and free.wait(PATIENCE_S)
    engine.admit([row(number, "unwanted") for number in range(4)])
    wait_until(lambda: peer.prompts.count("unwanted") == 2, "two requests at the server")
    assert engine.discard(lambda _: True) == 4
    engine.admit([row(9)])
    # no answer has come: the places at the server are free because the requests were taken back
    assert numbers(drain(engine)) == [9]
    free.set()
    engine.admit([row(10)])
    assert numbers(drain(engine)) == [10]
    assert peer.prompts.count("unwanted") == 2


def test_after_finishing_the_server_is_asked_for_nothing_until_the_engine_goes_on(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer, max_in_flight=2)
    free = threading.Event()
    peer.answer = lambda prompt: prompt == "slow" and free.wait(PATIENCE_S)
    engine.admit([row(number, "slow") for number in range(4)])
    wait_until(lambda: peer.prompts.count("slow") == 2, "two requests at the server")
    assert engine.finish() == []
    assert (engine.stats.active, engine.stats.waiting) == (0, 4)
    engine.admit([row(4)])
    # the loop has seen what was admitted
    engine._thread.wait(engine._pool.dispatcher.halt())
    assert peer.prompts.count("a fox") == 0
    assert peer.prompts.count("slow") == 2
    free.set()
    assert numbers(drain(engine)) == [0, 1, 2, 3, 4]


def test_what_was_there_when_a_model_died_twice_is_made_alone_and_before_the_others(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer, max_in_flight=4)
    inside = Inside()
    deaths = []
    together = threading.Barrier(4)
    moment = threading.Event()

    def die_twice(prompt: str) -> None:
        if prompt == "there" and len(deaths) < 2:
            if together.wait(PATIENCE_S) == 0:
                peer.dead = True
                deaths.append(prompt)
            together.wait(PATIENCE_S)
            refuse("INTERNAL", DEAD)
        with inside.having(prompt):
            moment.wait(0.05)

    peer.answer = die_twice
    engine.admit([row(number, "there" if number < 4 else "later") for number in range(12)])
    found = drain(engine)
    assert all(isinstance(outcome, ImageResult) for outcome in found), found
    assert sorted(outcome.request.row_id for outcome in found[:4]) == [0, 1, 2, 3]
    assert numbers(found) == list(range(12))
    beside = [others for prompt, others in inside.seen if prompt == "there"]
    assert beside == [()] * 4
    assert any(others for prompt, others in inside.seen if prompt == "later")


def test_a_server_that_refuses_rests_and_is_asked_again_for_all(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    refusals = []

    def full(prompt: str) -> None:
        if len(refusals) < 6:
            refusals.append(prompt)
            refuse("UNAVAILABLE", "Exceeds maximum queue size")

    peer.answer = full
    engine.admit([row(number) for number in range(10)])
    assert numbers(drain(engine)) == list(range(10))
    (server,) = engine._pool.servers
    assert server.endpoint.limit < 8, "it is asked for fewer at a time"


def test_requests_that_are_refused_together_count_as_one_refusal(
    peers: Peers, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peers()
    engine = engines(peer)
    for name in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(f"operators.triton_client.endpoints.{name}", 2.0)
    together = threading.Barrier(8)
    refusing = threading.Event()
    refusing.set()

    def full(prompt: str) -> None:
        if refusing.is_set():
            together.wait(PATIENCE_S)
            refusing.clear()
            refuse("UNAVAILABLE", "Exceeds maximum queue size")

    peer.answer = full
    engine.admit([row(number) for number in range(8)])
    assert numbers(drain(engine)) == list(range(8))
    (server,) = engine._pool.servers
    assert server.endpoint.limit == 6, "a quarter less than 8"


def test_more_is_asked_at_a_time_while_rows_wait_and_batches_are_not_full(
    peers: Peers, engines: Engines
) -> None:
    peer = peers(streams=True)
    engine = engines(peer)
    waits = threading.Event()

    def slow(prompt: str) -> None:
        waits.wait(0.01)
        peer.rows = 1 + len(peer.prompts) // 200

    peer.answer = slow
    engine.admit([row(number) for number in range(600)])
    (server,) = engine._pool.servers
    grown = []
    drain(engine, lambda _: grown.append(server.endpoint.limit))
    assert max(grown) > 8
    assert peer.calls["statistics"] == 1, "a continuous one tells it with its images"


def test_a_row_that_fails_three_times_on_a_server_that_is_well_is_given_up(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)

    def odd(prompt: str) -> None:
        if prompt == "odd":
            refuse("INTERNAL", "an illegal memory access")

    peer.answer = odd
    engine.admit([row(0, "odd"), row(1)])
    found = {outcome.request.row_id: outcome for outcome in drain(engine)}
    assert isinstance(found[1], ImageResult)
    assert isinstance(found[0], ImageFailure)
    assert found[0].reason == "server_failed"
    assert found[0].message.startswith(
        "Triton failed 3 times with this image alone (an illegal memory access); "
    )
    assert peer.prompts.count("odd") == 3


def test_a_row_that_does_not_pass_for_its_size_is_given_up_at_once(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)

    def narrow(prompt: str) -> None:
        if prompt == "large":
            refuse("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)")

    peer.answer = narrow
    engine.admit([row(0, "large")])
    (outcome,) = drain(engine)
    assert isinstance(outcome, ImageFailure)
    assert (outcome.stage, outcome.reason) == ("denoise", "message_too_large")
    assert peer.prompts.count("large") == 1


def test_a_row_that_times_out_is_tried_alone_before_it_is_given_up(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer, timeout_s=0.5, max_in_flight=2)
    inside = Inside()
    over = threading.Event()
    hangs = []

    def hang(prompt: str) -> None:
        with inside.having(prompt):
            if prompt == "hang":
                hangs.append(prompt)
                over.wait(PATIENCE_S)

    peer.answer = hang
    engine.admit([row(0, "hang"), *(row(number) for number in range(1, 6))])
    found = {outcome.request.row_id: outcome for outcome in drain(engine)}
    over.set()
    assert sorted(found) == list(range(6))
    assert isinstance(found[0], ImageFailure)
    assert found[0].reason == "row_timeout"
    assert all(isinstance(found[number], ImageResult) for number in range(1, 6))
    assert len(hangs) == 2, "once among others, once alone"


def test_an_engine_whose_thread_hangs_is_not_waited_for_at_its_end(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_at(peers())
    goes_on = threading.Event()
    engine._thread.call(goes_on.wait, PATIENCE_S)
    with monkeypatch.context() as impatient:
        impatient.setattr("operators.engines.triton._CLOSE_S", 0.05)
        with pytest.raises(TimeoutError):
            engine.close()
    goes_on.set()
    engine.close()
