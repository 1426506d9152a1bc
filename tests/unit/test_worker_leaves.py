"""How a worker leaves: told to, without a device, a store or a coordinator; nothing is lost."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from shard_records import PRICE

from cluster import actors
from cluster.lifetime import utc_now
from cluster.nodes import Shape
from cluster.ray_session import Resources
from cluster.records import stamp_from_json
from cluster.store import Store
from cluster.worker import WorkerOutcome
from conf.errors import CoordinatorLost, StoreFull, StoreUnavailable
from conf.price_book import book_of
from conf.schema import RunConfig
from jobs.verify import verify
from operators.engine import ImageFailure, ImageResult
from tests.one_worker import ROWS, TINY, Hooked, Stage
from tests.small_jobs import run_small_job, work_on
from tests.stores import ONCE

PATIENCE_S = 20.0


def test_drain_commits_what_is_finished_and_returns_the_leases(tmp_path: Path) -> None:
    rows = [{"prompt": "quick", "steps": 1}] + [{"prompt": "slow", "steps": 1000}] * 3
    stage = Stage(tmp_path, rows, **{"job.commit_seconds": 1e6})
    ticks = iter(range(10**9))

    def drain_at_the_third() -> None:
        if next(ticks) == 2:
            stage.link.coordinator.drain()
            assert stage.link.told.wait(PATIENCE_S)

    engine = Hooked(stage.small, before_tick=drain_at_the_third)
    assert stage.run(engine).error is None
    assert stage.whole() == (1, 0, 3)
    assert stage.link.returns == [(0, False)]
    assert stage.link.seals == []


class Withholding(Hooked):
    """An engine whose finished pictures are under way until somebody waits for them."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.under_way: list[ImageResult | ImageFailure] = []

    def tick(self, *, more_to_come: bool = False) -> list[ImageResult | ImageFailure]:
        self.under_way += super().tick(more_to_come=more_to_come)
        return []

    def finish(self) -> list[ImageResult | ImageFailure]:
        return self.under_way


@pytest.mark.parametrize("how", ["drained", "preempted"])
def test_what_the_engine_had_finished_is_committed_before_a_worker_leaves(
    tmp_path: Path, how: str
) -> None:
    rows = [{"prompt": "quick", "steps": 1}] + [{"prompt": "slow", "steps": 1000}] * 3
    stage = Stage(tmp_path, rows, **{"job.commit_seconds": 1e6})
    ticks = iter(range(10**9))

    def leave_at_the_third() -> None:
        if next(ticks) == 2:
            worker.preempt("taken away") if how == "preempted" else worker._state.drain()

    worker = stage.worker(Withholding(stage.small, before_tick=leave_at_the_third))
    assert worker.run().error == (None if how == "drained" else "Preempted")
    assert stage.whole() == (1, 0, 3)
    assert stage.link.returns == [(0, False)]


def test_a_device_that_hangs_while_a_worker_leaves_is_left_behind(tmp_path: Path) -> None:
    class Stuck(Hooked):
        never = threading.Event()

        def finish(self) -> list[ImageResult | ImageFailure]:
            self.never.wait(PATIENCE_S)
            return []

    stage = Stage(tmp_path, ROWS[:4], **{"job.row_timeout_s": 0.3})
    outcome = stage.run(Stuck(stage.small))
    Stuck.never.set()
    assert outcome.error == "EngineHung"


def test_what_a_drained_worker_left_is_finished_by_the_next_one(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    assert verify(small.store).pending == 2
    small = work_on(small)
    assert small.outcomes[-1].error is None
    assert verify(small.store).pending == 0


def test_a_lost_device_returns_the_leases_as_failed_and_is_raised(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    def lose() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        stage.run(Hooked(stage.small, before_tick=lose))
    assert stage.link.returns
    assert all(failed for _, failed in stage.link.returns)
    assert stage.whole() == (0, 0, 6)
    assert stage.run(name="w2").error is None
    assert stage.whole() == (6, 0, 0)


def test_an_engine_that_cannot_be_loaded_is_raised(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    worker = stage.worker(None)

    def broken() -> Any:
        raise RuntimeError("no such device")

    worker._make_engine = broken
    with pytest.raises(RuntimeError, match="no such device"):
        worker.run()
    assert stage.whole() == (0, 0, 6)


@pytest.mark.parametrize("nth", range(1, 16, 2))
def test_a_store_that_fills_up_ends_the_worker_and_loses_nothing(tmp_path: Path, nth: int) -> None:
    stage = Stage(tmp_path)
    config = stage.small.config
    puts = iter(range(1, 10**9))

    class Filling(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            if not key.startswith("workers/") and next(puts) >= nth:
                raise StoreFull(f"cannot write {key}: No space left on device")
            super().put_if_absent(key, data)

    outcome = stage.run(store=Filling(config.output.path, ONCE))
    assert (outcome.error, outcome.retryable) == ("StoreFull", False)
    assert "No space left on device" in outcome.message
    assert sum(stage.whole()) == 6
    assert not any(failed for _, failed in stage.link.returns)
    stage.link.coordinator.gone("w1", crashed=False)  # as the supervisor says
    assert stage.run(name="w2").error is None
    assert stage.whole() == (6, 0, 0)


def test_a_worker_that_loses_its_coordinator_commits_what_is_finished_and_leaves(
    tmp_path: Path,
) -> None:
    shard = [{"prompt": "quick", "steps": 1}] + [{"prompt": "slow", "steps": 1000}] * 3
    stage = Stage(tmp_path, shard, **{"job.commit_seconds": 1e6})
    died = threading.Event()
    ticks = iter(range(10**9))

    def lost(*_: Any) -> Any:
        died.set()
        raise CoordinatorLost("the run's coordinator died")

    def lose_it() -> None:
        if next(ticks) == 2:
            for name in ("acquire", "sealed", "returned", "beat"):
                setattr(stage.link, name, lost)
            assert died.wait(PATIENCE_S)

    outcome = stage.run(Hooked(stage.small, before_tick=lose_it))
    assert (outcome.error, outcome.message) == ("CoordinatorLost", "the run's coordinator died")
    assert not outcome.retryable
    assert stage.whole() == (1, 0, 3)


def test_a_first_stamp_that_cannot_be_written_is_an_outcome_and_no_crash(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ROWS[:4])

    class Stampless(Store):
        def put(self, key: str, data: bytes) -> None:
            raise StoreUnavailable(f"{key}: no answer")

    outcome = stage.run(store=Stampless(stage.small.config.output.path, ONCE))
    assert (outcome.error, outcome.retryable) == ("StoreUnavailable", True)
    assert outcome.message == "workers/w1.json: no answer"
    assert stage.whole() == (0, 0, 4)


ALONE = Resources(shape=Shape(gpus=0.0), least=1, most=1, per_node=None, workers=1, threads=1)


def actor_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> actors.WorkerActor:
    """The worker's actor in this process, without Ray."""
    monkeypatch.setattr(actors.ray, "get_gpu_ids", list)
    monkeypatch.setattr(actors, "price_here", lambda config, book: PRICE)
    monkeypatch.setattr(actors, "gpus_here", lambda: 0.0)
    return actors.WorkerActor(
        stage.small.config.to_mapping(),
        worker="w1",
        run=1,
        generation=0,
        model_revision="simulated",
        book=book_of(stage.small.config.pricing),
        size=ALONE,
        coordinator=None,
    )


def test_a_workers_life_begins_with_its_actor_and_is_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    actor = actor_of(stage, monkeypatch)
    actor._link = stage.link
    constructed_at = utc_now()
    assert actor.run().error is None
    (entry,) = stage.small.store.listing("workers/")
    assert entry.key == "workers/w1.json"
    stamp = stamp_from_json(stage.small.store.get(entry.key) or b"", entry.key)
    assert stamp.started_at < constructed_at
    assert stamp.closed


@pytest.mark.parametrize("failed", [False, True])
def test_an_engine_that_cannot_be_closed_neither_fails_a_worker_nor_hides_what_did(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failed: bool,
) -> None:
    stage = Stage(tmp_path)

    def hangs() -> None:
        raise TimeoutError("no answer")

    def breaks() -> None:
        if failed:
            raise RuntimeError("no device")

    def engine_of(config: RunConfig, closing: ExitStack) -> Hooked:
        closing.callback(hangs)
        return Hooked(stage.small, before_tick=breaks)

    monkeypatch.setattr(actors, "engine_of", engine_of)
    actor = actor_of(stage, monkeypatch)
    actor._link = stage.link
    if failed:
        with pytest.raises(RuntimeError, match="no device"):
            actor.run()
    else:
        assert actor.run().error is None
    assert "the engine was not closed: TimeoutError('no answer')" in caplog.messages


def test_an_actor_whose_store_is_away_ends_in_words_and_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)

    def away(store: Store) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(actors, "PlanReader", away)
    actor = actor_of(stage, monkeypatch)
    assert actor.run() == WorkerOutcome(
        worker="w1", error="StoreUnavailable", message="no answer", retryable=True
    )


def test_uploads_that_wait_are_not_tried_once_the_store_is_lost(tmp_path: Path) -> None:
    stage = Stage(tmp_path, **{"cluster.io_threads": 1, "engine.max_batch": 8})
    tries: list[str] = []

    class Away(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            if key.startswith("images/"):
                tries.append(key)
                raise StoreUnavailable(f"{key}: no answer")
            super().put_if_absent(key, data)

    outcome = stage.run(store=Away(stage.small.config.output.path, ONCE))
    assert outcome.error == "StoreUnavailable"
    assert len(tries) == 1, "each would wait for its whole patience"
