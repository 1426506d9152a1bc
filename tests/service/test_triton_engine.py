"""The Triton engine beside a real tritonserver that is busy, killed, frozen or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from conf.errors import ServerLost, ServerUnfit
from operators.engine import ImageFailure, ImageResult
from operators.engines.triton import TritonEngine
from tests.cluster.job_process import wait_until
from tests.scripted_triton import (
    MODEL,
    drain,
    engines_closed,
    numbers,
    row,
    write_repository,
)
from tests.triton_server import TritonServer

Engine = Callable[..., TritonEngine]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Makes engines that are impatient, and closed after the test."""
    monkeypatch.setattr("operators.triton_client.keeper._QUIET_S", 1.0)
    monkeypatch.setattr("operators.triton_client.keeper._LIVE_S", 1.0)
    monkeypatch.setattr("operators.triton_client.pool._WELL_S", 5.0)
    with engines_closed() as make:
        yield make


@pytest.fixture
def serve(triton: None, tmp_path: Path) -> Iterator[Callable[..., TritonServer]]:
    """Starts servers with the scripted model, in explicit mode."""
    with ExitStack() as running:
        started: list[TritonServer] = []

        def start(*, explicit: bool = True, **keys: object) -> TritonServer:
            folder = tmp_path / f"server{len(started)}"
            repository = write_repository(folder / "models", **keys)
            server = TritonServer(folder, repository, explicit=[MODEL] if explicit else None)
            started.append(running.enter_context(server))
            return server

        yield start


def images(outcomes: list[ImageResult | ImageFailure]) -> list[int]:
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes), outcomes
    return numbers(outcomes)


def test_batches_are_kept_full_and_every_request_comes_back_once(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    engine = engines(serve(delay_ms=20))
    assert (engine.info.name, engine.info.model, engine.info.model_revision) == (
        "triton",
        MODEL,
        "r1",
    )
    engine.admit([row(number, "wait 0.002") for number in range(200)])
    assert images(drain(engine)) == list(range(200))
    stats = engine.stats
    # an image more: the one with which the engine began
    assert (stats.busy_ns, stats.estimated_ns) == (201 * 1_000_000, 0)
    assert stats.occupied == 200 * 4
    assert stats.occupied / stats.offered > 0.75
    assert (stats.active, stats.waiting, engine.busy) == (0, 0, False)


def test_a_rows_own_failure_is_the_rows_alone(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    engine = engines(serve())
    engine.admit([row(0), row(1, "fail"), row(2), row(3, "odd"), row(4, "\ud800")])
    found = {outcome.request.row_id: outcome for outcome in drain(engine)}
    assert sorted(found) == [0, 1, 2, 3, 4]
    failed, odd, broken = found[1], found[3], found[4]
    assert isinstance(failed, ImageFailure)
    assert (failed.stage, failed.reason, failed.message) == ("check", "nan_image", "no numbers")
    assert failed.device_ns == 25_000_000
    assert isinstance(odd, ImageFailure)
    assert (odd.stage, odd.reason) == ("denoise", "server_failed")
    assert odd.message.startswith("Triton failed 3 times with this image alone (")
    assert "an illegal memory access was encountered" in odd.message
    assert isinstance(broken, ImageFailure)
    assert broken.reason == "bad_prompt"
    assert all(isinstance(found[number], ImageResult) for number in (0, 2))


def test_a_full_queue_is_waited_for(serve: Callable[..., TritonServer], engines: Engine) -> None:
    engine = engines(serve(max_queue=1, max_batch=2), max_in_flight=16)
    engine.admit([row(number, "wait 0.01") for number in range(40)])
    assert images(drain(engine)) == list(range(40))


def test_a_model_whose_process_died_is_loaded_anew_and_no_image_is_lost_or_doubled(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    server = serve()
    engine = engines(server)
    engine.admit([row(number, "wait 0.02") for number in range(40)])
    killed: list[int] = []

    def kill(outcomes: int) -> None:
        if outcomes >= 8 and not killed:
            killed.extend(server.kill_stubs())

    assert images(drain(engine, kill)) == list(range(40))
    assert killed


def test_the_row_that_kills_its_model_each_time_is_the_only_one_given_up(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    engine = engines(serve())
    engine.admit([row(number, "crash" if number == 5 else "a fox") for number in range(16)])
    found = {outcome.request.row_id: outcome for outcome in drain(engine)}
    assert sorted(found) == list(range(16))
    failure = found.pop(5)
    assert isinstance(failure, ImageFailure)
    assert (failure.stage, failure.reason) == ("denoise", "server_crash")
    assert failure.message.startswith(
        "the server's model died 4 times while it made this image, the last two times no other"
    )
    assert all(isinstance(outcome, ImageResult) for outcome in found.values())


def test_a_server_that_is_killed_and_started_again_goes_on(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    server = serve()
    engine = engines(server)
    engine.admit([row(number, "wait 0.02") for number in range(40)])
    restarts: list[TritonServer] = []

    def restart(outcomes: int) -> None:
        if outcomes >= 8 and not restarts:
            restarts.append(server.restart())

    assert images(drain(engine, restart)) == list(range(40))
    assert restarts


def test_requests_of_a_frozen_server_go_to_another(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    frozen, other = serve(), serve()
    engine = engines(frozen, other)
    engine.admit([row(number, "wait 0.02") for number in range(40)])

    def freeze(outcomes: int) -> None:
        if outcomes == 0:
            frozen.pause()

    assert images(drain(engine, freeze)) == list(range(40))
    frozen.go_on()


def test_a_row_that_hangs_is_found_alone_and_the_one_behind_it_is_made(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    engine = engines(serve(max_batch=1), timeout_s=2)
    engine.admit([row(0, "hang"), row(1)])
    overdue: list[int] = []

    def look(outcomes: int) -> None:
        overdue.extend(request.row_id for request in engine.overdue(1.0))

    found = {outcome.request.row_id: outcome for outcome in drain(engine, look)}
    assert sorted(found) == [0, 1]
    assert isinstance(found[1], ImageResult)
    failure = found[0]
    assert isinstance(failure, ImageFailure)
    assert (failure.stage, failure.reason) == ("denoise", "row_timeout")
    assert failure.message.startswith(
        "Triton made nothing of this image alone within triton.timeout_s=2, and makes others; "
    )
    assert set(overdue) == {0}


def test_servers_that_stay_away_lose_the_device_but_nothing_before_that(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    server = serve()
    engine = engines(server, patience_s=0.5)
    engine.admit([row(0)])
    assert images(drain(engine)) == [0]
    engine.admit([row(1, "hang")])
    server.kill()
    with pytest.raises(
        ServerLost,
        match=r"^no Triton server made an image for triton\.patience_s=0\.5: grpc://127\.0\.0\.1:",
    ):
        drain(engine)
    with pytest.raises(ServerLost):
        engine.tick()
    with pytest.raises(ServerLost):
        engine.finish()


def test_a_model_exchanged_under_our_requests_makes_no_image_that_counts(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    """Triton loads the new one beside the old one, whose requests it ends: nothing fails."""
    server = serve(max_batch=1)
    engine = engines(server, patience_s=1)
    engine.admit([row(number, "wait 0.05") for number in range(200)])
    found: list[ImageResult | ImageFailure] = []
    wait_until(lambda: bool(found.extend(engine.tick()) or found), "the first image")
    write_repository(server.repository, revision="r2", max_batch=1)
    with InferenceServerClient(server.grpc) as client:
        client.load_model(MODEL)
        with pytest.raises(ServerLost, match=r"of revision r2.*; this job began with scripted of"):
            _drain_into(found, engine)
        made = client.get_inference_statistics(MODEL).model_stats[0].inference_stats.success.count
    assert made > 0, "the other one was asked"
    assert len(images(found)) < 200


def _drain_into(found: list[ImageResult | ImageFailure], engine: TritonEngine) -> None:
    while engine.busy:
        found += engine.tick()


def test_a_server_that_comes_back_with_another_revision_makes_no_image(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    server = serve()
    engine = engines(server, patience_s=2)
    server.kill()
    write_repository(server.repository, revision="r2")
    server.start()
    engine.admit([row(0)])
    with pytest.raises(
        ServerLost, match=r": it has scripted of revision r2 now; this job began with scripted of "
    ):
        drain(engine)


def test_finishing_cancels_what_is_being_made_and_keeps_what_is_there(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    engine = engines(serve(max_batch=1))
    engine.admit([row(0)])
    assert images(drain(engine)) == [0]
    engine.admit([row(1, "hang")])
    wait_until(lambda: engine.stats.active == 1, "the row is asked for")
    assert engine.finish() == []
    assert (engine.stats.active, engine.stats.waiting) == (0, 1)
    assert engine.discard(lambda _: True) == 1
    engine.admit([row(2)])
    assert images(drain(engine)) == [2]


@pytest.mark.parametrize("owned", [False, True], ids=["others use it too", "our own"])
def test_what_a_server_spent_on_a_cancelled_row_is_estimated_where_its_time_is_not_paid_anyway(
    serve: Callable[..., TritonServer], engines: Engine, tmp_path: Path, owned: bool
) -> None:
    gate = tmp_path / "gate"
    engine = engines(serve(max_batch=1), owned=owned)
    engine.admit([row(number) for number in range(4)])
    assert images(drain(engine)) == [0, 1, 2, 3]
    told_ns = engine.stats.busy_ns
    engine.admit([row(4, f"until {gate}")])
    wait_until(Path(f"{gate}.reached").exists, "the model works on the row")
    assert engine.finish() == []
    assert engine.discard(lambda _: True) == 1
    gate.touch()
    lost_ns = engine.stats.estimated_ns
    assert engine.stats.busy_ns == told_ns + lost_ns
    # an image of its size and steps costs a millisecond
    assert lost_ns == 0 if owned else 0 < lost_ns <= 1_000_000


def test_one_server_of_two_that_is_away_at_the_start_is_left_out_until_it_comes(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    here, away = serve(), serve()
    away.kill()
    engine = engines(here, away)
    engine.admit([row(number) for number in range(8)])
    assert images(drain(engine)) == list(range(8))


def test_servers_with_different_models_are_refused(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    one, other = serve(), serve(revision="r2")
    with pytest.raises(
        ServerUnfit,
        match=rf"the servers of triton\.url have different models: grpc://{one.grpc} has scripted "
        rf"of revision r1, grpc://{other.grpc} has scripted of revision r2; expected the same on",
    ):
        engines(one, other)


def test_a_model_that_is_not_loaded_is_loaded_where_the_server_does_that(
    serve: Callable[..., TritonServer], engines: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "late"
    repository = write_repository(folder / "models")
    with TritonServer(folder, repository, explicit=[]) as server:
        engine = engines(server)
        engine.admit([row(0)])
        assert images(drain(engine)) == [0]
        with pytest.raises(
            ServerUnfit,
            match=rf"grpc://{server.grpc} has not loaded a model 'other', and cannot be told to "
            r"\(.*\); its repository has scripted; load it there, or give triton\.model=",
        ):
            engines(server, model="other")


def test_the_stub_that_died_before_the_start_is_seen_though_the_model_says_it_is_ready(
    serve: Callable[..., TritonServer], engines: Engine
) -> None:
    server = serve(explicit=False)
    server.kill_stubs()
    with pytest.raises(ServerLost, match=r"no Triton server makes an image: .*tub process"):
        engines(server, patience_s=0)
