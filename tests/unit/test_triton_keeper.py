"""What is done about a server that fails: when it is asked again, and who has its model loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from conf.errors import ServerLost
from operators.engine import ImageFailure, ImageResult
from operators.engines.triton import TritonEngine
from tests.cluster.job_process import wait_until
from tests.scripted_triton import drain, numbers, row
from tests.triton_peer import DEAD, TritonPeer, refuse

Engines = Callable[..., TritonEngine]
Peers = Callable[..., TritonPeer]


def images(engine: TritonEngine) -> list[int]:
    outcomes = drain(engine)
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes), outcomes
    return numbers(outcomes)


def failure(engine: TritonEngine) -> ImageFailure:
    (outcome,) = drain(engine)
    assert isinstance(outcome, ImageFailure)
    return outcome


def test_a_server_with_a_dead_process_beside_live_ones_has_its_model_loaded_anew(
    peers: Peers, engines: Engines
) -> None:
    """Probes reach the live one; the dead one would take every row down, one after the other."""
    peer = peers(instances=2)
    engine = engines(peer)

    def half_dead(prompt: str) -> None:
        if prompt != "a probe" and not peer.calls["load"]:
            refuse("INTERNAL", DEAD)

    peer.answer = half_dead
    engine.admit([row(number) for number in range(20)])
    assert images(engine) == list(range(20))
    assert (peer.calls["unload"], peer.calls["load"]) == (1, 1)


def test_no_row_is_to_blame_where_a_server_with_a_dead_process_cannot_be_told_to_load(
    peers: Peers, engines: Engines
) -> None:
    peer = peers(instances=2)
    engine = engines(peer, patience_s=1.5)

    def half_dead(prompt: str) -> None:
        if prompt != "a probe":
            refuse("INTERNAL", DEAD)

    peer.answer = half_dead
    peer.explicit = False
    engine.admit([row(number) for number in range(20)])
    with pytest.raises(
        ServerLost,
        match=r": Stub process 'scripted_0_0' is not healthy\.; loading it anew failed: explicit "
        r"model load / unload is not allowed if polling is enabled; restart the server, or start "
        r"it with --model-control-mode=explicit$",
    ):
        drain(engine)


def test_a_model_that_somebody_loads_already_is_left_to_load(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    peer.dead, peer.state = True, "LOADING"
    engine.admit([row(0)])
    looked = threading.Event()

    def asked(name: str) -> None:
        if peer.calls["index"] >= 3:
            looked.set()

    peer.asked = asked
    assert looked.wait(10)
    assert not peer.calls["unload"]
    peer.state = None
    peer.begin_anew()
    assert images(engine) == [0]
    assert not peer.calls["unload"]


def test_a_model_that_another_had_loaded_anew_since_it_failed_is_not_loaded_once_more(
    peers: Peers, engines: Engines
) -> None:
    """Its count of images began anew."""
    peer = peers()
    engine = engines(peer)
    engine.admit([row(number) for number in range(5)])
    assert len(images(engine)) == 5
    peer.dead = True

    def asked(name: str) -> None:
        if name == "index":
            peer.begin_anew()

    peer.asked = asked
    engine.admit([row(5)])
    assert images(engine) == [5]
    assert not peer.calls["unload"]


def test_a_model_that_somebody_unloaded_is_loaded_and_not_unloaded(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    peer.loaded = False
    engine.admit([row(0)])
    assert images(engine) == [0]
    assert (peer.calls["unload"], peer.calls["load"]) == (0, 1)


def test_a_model_that_fails_for_us_and_makes_the_images_of_others_is_not_loaded_anew(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    failing = threading.Event()
    failing.set()

    def odd(prompt: str) -> None:
        peer.made += 1  # another's
        if failing.is_set():
            refuse("INTERNAL", "CUDA error")

    peer.answer = odd

    def asked(name: str) -> None:
        if peer.calls["index"] >= 3:
            failing.clear()

    peer.asked = asked
    engine.admit([row(0)])
    assert images(engine) == [0]
    assert not peer.calls["unload"]


def test_a_row_that_timed_out_behind_others_images_is_asked_for_again_and_not_blamed(
    peers: Peers, engines: Engines
) -> None:
    """Alone of ours on a server that answers no probe, but makes the images of others."""
    peer = peers()
    engine = engines(peer, timeout_s=0.2, patience_s=60)
    tries = []
    free = threading.Event()

    def crowded(prompt: str) -> None:
        peer.made += 1  # another's
        if prompt == "late":
            tries.append(prompt)
        if len(tries) > 4:
            free.set()
        assert free.wait(10)

    peer.answer = crowded
    engine.admit([row(0, "late")])
    assert images(engine) == [0]


def test_an_image_of_another_revision_is_not_counted_though_the_server_never_went_away(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer, patience_s=0.5)
    engine.admit([row(0)])
    assert images(engine) == [0]
    peer.revision = "r2"
    engine.admit([row(1)])
    with pytest.raises(
        ServerLost, match=r"of revision r2.*; this job began with scripted of revision r1"
    ):
        drain(engine)
    assert engine.stats.busy_ns == 3_000_000, "its first image, ours, and the other one's are paid"


def test_a_failure_that_another_revision_tells_is_no_fault_of_the_row(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    told = (
        '{"stage": "check", "reason": "nan_image", "message": "no", "gpu_seconds": 0, '
        '"revision": "r2"}'
    )

    def once(prompt: str) -> None:
        if peer.prompts.count("a fox") == 1 and prompt == "a fox":
            refuse("INVALID_ARGUMENT", told)

    peer.answer = once
    engine.admit([row(0)])
    assert images(engine) == [0]


def test_a_row_with_which_a_model_dies_is_given_up_after_it_died_twice_with_it_alone(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    with_it: list[set[str]] = []
    inside: set[str] = set()

    def poison(prompt: str) -> None:
        if prompt == "poison":
            with_it.append(set(inside))
            peer.dead = True
            refuse("INTERNAL", DEAD)

    peer.answer = poison
    engine.admit([row(0, "poison")])
    found = failure(engine)
    assert (found.stage, found.reason) == ("denoise", "server_crash")
    assert found.message.startswith(
        "the server's model died 4 times while it made this image, the last two times no other "
        "image of this worker (Stub process 'scripted_0_0' is not healthy.); "
    )
    assert len(with_it) == 4
    assert peer.calls["unload"] == 3, "the last death is left to whoever asks next"


def test_a_server_that_became_continuous_is_asked_by_streams(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    streams = threading.Event()

    def answer(prompt: str) -> None:
        if peer.streams and not streams.is_set():
            refuse("UNIMPLEMENTED", "ModelInfer RPC doesn't support decoupled models")

    peer.answer, peer.streams = answer, True

    def asked(name: str) -> None:
        if name == "config":
            streams.set()

    peer.asked = asked
    engine.admit([row(0)])
    assert images(engine) == [0]
    wait_until(lambda: engine._pool.model.streams, "streams")


def test_a_server_with_full_batches_is_hardly_asked_for_its_statistics(
    peers: Peers, engines: Engines
) -> None:
    peer = peers()
    engine = engines(peer)
    began = peer.calls["statistics"]
    looks = threading.Event()

    def full(prompt: str) -> None:
        peer.batches = {4: len(peer.prompts)}
        looks.wait(0.02)

    peer.answer = full
    engine.admit([row(number) for number in range(400)])
    assert len(images(engine)) == 400
    assert peer.calls["statistics"] - began <= 3, "of some 20 looks"
