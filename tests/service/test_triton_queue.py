"""The queue of a real tritonserver: who overtakes whom, and what becomes of those it turns away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from conf.errors import ServerUnfit
from operators.engine import ImageFailure, ImageResult
from operators.engines.triton import TritonEngine
from operators.triton_client.endpoints import Endpoint
from tests.cluster.job_process import wait_until
from tests.scripted_triton import (
    SIZE,
    drain,
    engine_at,
    numbers,
    pending,
    row,
    write_repository,
)
from tests.small_jobs import prepare_small_job, run_small_job, work_on
from tests.triton_server import TritonServer

LEVELS, EXPIRING = "levels", "expiring"
MODELS: dict[str, dict[str, Any]] = {
    LEVELS: {"max_queue": 4, "priority_levels": 3},
    EXPIRING: {"queue_timeout_s": 0.05},
}
QUEUE = 4
Engine = Callable[..., TritonEngine]


@pytest.fixture(scope="module")
def server(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One image at a time; each level of priority has a queue of four."""
    folder = tmp_path_factory.mktemp("queue")
    for name, keys in MODELS.items():
        write_repository(folder / "models", name=name, max_batch=1, **keys)
    with TritonServer(folder, folder / "models") as running:
        yield running


@pytest.fixture
def engines(server: TritonServer) -> Iterator[Engine]:
    """Makes engines that are closed after the test."""
    with ExitStack() as closing:

        def make(model: str = LEVELS, **keys: Any) -> TritonEngine:
            engine = engine_at(server, model=model, **keys)
            closing.callback(engine.close)
            return engine

        yield make


@contextmanager
def held(engine: TritonEngine, gate: Path) -> Iterator[None]:
    """The model works on a row of the engine until the end of the block."""
    engine.admit([row(0, f"until {gate}")])
    try:
        wait_until(Path(f"{gate}.reached").exists, "the model works on the row")
        yield
    finally:
        gate.touch()


def places(outcomes: list[ImageResult | ImageFailure]) -> list[int]:
    """The rows' places in the order in which the model came to them."""
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes), outcomes
    return [one.truncated_tokens for one in outcomes if isinstance(one, ImageResult)]


def test_rows_of_a_higher_priority_overtake_a_full_queue_and_nobody_is_lost(
    server: TritonServer, engines: Engine, tmp_path: Path
) -> None:
    low, high = engines(priority=3, max_in_flight=16), engines(priority=1, max_in_flight=4)
    with held(low, tmp_path / "gate"):
        low.admit([row(number, "place") for number in range(1, 20)])
        wait_until(
            lambda: low.stats.active == 1 + QUEUE and pending(server, LEVELS) == QUEUE,
            "a full queue, and all others turned away",
        )
        high.admit([row(number, "place") for number in range(100, 104)])
        wait_until(lambda: pending(server, LEVELS) == QUEUE + 4, "the other rows wait, too")
    first, last = drain(high), drain(low)
    assert numbers(first) == list(range(100, 104))
    assert numbers(last) == list(range(20))
    behind = [one for one in last if one.request.row_id]
    assert max(places(first)) < min(places(behind))


def job_words(server: TritonServer, model: str) -> dict[str, Any]:
    return {
        "engine.name": "triton",
        "engine.precision": "auto",
        "engine.max_batch": None,
        "triton.url": f"grpc://{server.grpc}",
        "triton.model": model,
        "triton.max_in_flight": 8,
        "sampling.width": SIZE,
        "sampling.height": SIZE,
        "input.shard_rows": 10,
    }


def test_a_jobs_priority_lets_its_rows_overtake(
    server: TritonServer, engines: Engine, tmp_path: Path
) -> None:
    low = engines(priority=3, max_in_flight=8)
    words = job_words(server, LEVELS) | {"job.priority": 1}
    job = prepare_small_job(tmp_path, [{"prompt": "place"}] * 3, **words)
    second = tmp_path / "second"
    with ThreadPoolExecutor(1) as pool:
        try:
            with held(low, tmp_path / "first"):
                low.admit([row(1, f"until {second}")])
                working = pool.submit(work_on, job)
                wait_until(
                    lambda: pending(server, LEVELS) == 2, "our row and the job's first image"
                )
                low.admit([row(number, "place") for number in range(2, 4)])
                wait_until(lambda: pending(server, LEVELS) == 4, "our other rows")
            # the job's rows are made, or they wait while the model works on our second row
            wait_until(lambda: working.done() or pending(server, LEVELS) == 5, "the job's rows")
        finally:
            second.touch()
        done = working.result()
    assert done.totals().committed == 3
    metadata = pq.read_table(tmp_path / "output" / "metadata").to_pylist()
    behind = [one for one in drain(low) if one.request.row_id > 1]
    assert len(behind) == 2
    assert max(image["truncated_tokens"] for image in metadata) < min(places(behind))


@pytest.mark.parametrize("priority", [4, 7])
def test_a_priority_that_the_server_has_no_level_for_is_refused(
    engines: Engine, server: TritonServer, priority: int
) -> None:
    with pytest.raises(
        ServerUnfit,
        match=rf"^job\.priority={priority}, but grpc://{server.grpc} has 3 priority levels for "
        r"this model; expected 1 to 3, or 0 for the server's own; export it with more ",
    ):
        engines(priority=priority)


@pytest.mark.parametrize("model", [LEVELS, EXPIRING], ids=["full queue", "waited too long"])
def test_rows_that_a_queue_turned_away_are_asked_for_again_and_none_is_quarantined(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    refusals: list[float] = []
    refused = Endpoint.refused

    def count(endpoint: Endpoint, now_s: float, random: Random) -> None:
        refusals.append(now_s)
        refused(endpoint, now_s, random)

    monkeypatch.setattr(Endpoint, "refused", count)
    rows = [{"prompt": "wait 0.06"}] * 10
    words = job_words(server, model) | {"job.max_attempts": 1, "job.max_quarantined": 0}
    totals = run_small_job(tmp_path, rows, **words).totals()
    assert (totals.committed, totals.quarantined) == (10, 0)
    assert refusals
