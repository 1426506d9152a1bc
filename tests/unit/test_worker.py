"""One worker in this process: what it commits, quarantines, gives back and says at its end."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shard_records import PRICE, commit_of, opened, try_open

from cluster import actors, feeder
from cluster.coordinator import BeatReply, Counts, WorkerProgress
from cluster.leases import Dismiss, Grant, Wait
from cluster.lifetime import utc_now
from cluster.records import stamp_from_json
from cluster.shard_log import ShardState, read_shard_state
from cluster.store import Store
from cluster.suspicion import Suspicion
from cluster.tables import read_parquet
from cluster.totals import sealed_shard
from cluster.worker import WorkerOutcome
from conf.errors import CoordinatorLost, StoreFull, StoreUnavailable
from conf.price_book import book_of
from jobs.verify import verify
from operators.engine import ImageFailure, ImageResult
from tests.one_worker import ROWS, TINY, Hooked, Stage, quarantine
from tests.small_jobs import run_small_job, work_on
from tests.stores import ONCE, walk

PATIENCE_S = 20.0


def test_a_worker_finishes_everything_and_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.run() == WorkerOutcome(worker="w1")
    assert stage.whole() == (6, 0, 0)
    assert sorted(seal.shard_id for seal in stage.link.seals) == [0, 1]
    assert stage.link.returns == []
    snapshot = stage.link.coordinator.snapshot()
    assert snapshot.finished
    assert snapshot.counts.rows == snapshot.made == 6


def test_failed_images_and_bad_rows_are_quarantined_with_their_reason(tmp_path: Path) -> None:
    rows = [{**row, "width": 16} for row in ROWS]
    rows += [{"prompt": "", "width": 16}, {"prompt": "x", "width": 17}]
    stage = Stage(tmp_path, rows)

    def nan(result: ImageResult | ImageFailure) -> ImageResult | ImageFailure:
        if result.request.row_id != 2:
            return result
        return ImageFailure(
            request=result.request,
            stage="decode",
            reason="nan_image",
            message="the image is not finite",
            device_ns=result.device_ns,
        )

    assert stage.run(Hooked(stage.small, change=nan)).error is None
    assert stage.whole() == (5, 3, 0)
    found = quarantine(stage.small.store)
    assert [(r["row_id"], r["stage"], r["reason"]) for r in found] == [
        (2, "decode", "nan_image"),
        (6, "read", "empty_prompt"),
        (7, "read", "bad_size"),
    ]


def test_pixels_that_cannot_be_encoded_cost_one_row(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    def grey(result: ImageResult | ImageFailure) -> ImageResult | ImageFailure:
        if isinstance(result, ImageFailure) or result.request.row_id != 4:
            return result
        return replace(result, pixels=result.pixels[:, :, 0])

    assert stage.run(Hooked(stage.small, change=grey)).error is None
    assert stage.whole() == (5, 1, 0)
    assert quarantine(stage.small.store)[0]["reason"] == "encode_failed"


def test_a_row_of_many_images_is_committed_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = [{"prompt": "three", "num_images": 3}, {"prompt": "four", "num_images": 4}]
    stage = Stage(tmp_path, rows, **{"engine.max_batch": 2, "job.commit_images": 1})

    def third_fails(result: ImageResult | ImageFailure) -> ImageResult | ImageFailure:
        if result.request.image_id != "000000000-2":
            return result
        return ImageFailure(
            request=result.request, stage="check", reason="black", message="black", device_ns=1
        )

    assert stage.run(Hooked(stage.small, change=third_fails)).error is None
    assert stage.whole() == (1, 1, 0)
    ids = [
        image_id
        for entry in stage.small.store.listing("metadata/")
        for image_id in read_parquet(stage.small.store.get(entry.key) or b"")[
            "image_id"
        ].to_pylist()
    ]
    assert ids == [f"000000001-{n}" for n in range(4)]


def test_a_batch_is_starved_while_shards_may_come_and_not_when_all_are_taken(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"picture {number}", "steps": 9} for number in range(3)]
    stage = Stage(tmp_path, rows, **{"engine.max_batch": 8, "input.shard_rows": 100})
    patience = threading.Event()

    def until_nothing_is_free() -> None:
        for _ in range(1000):
            # the answer is noted a moment after it was given: a second question follows it
            if stage.link.waits > 1 or patience.wait(0.02):
                return

    engine = Hooked(stage.small, before_tick=until_nothing_is_free)
    assert stage.run(engine).error is None
    stats = engine.stats
    assert (stats.ticks, stats.offered - stats.occupied) == (9, 45)
    # the first tick was begun before the worker had asked once more
    assert stats.starved in (0, 5)


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


def test_what_a_worker_says_of_its_seals_is_what_anybody_reads(tmp_path: Path) -> None:
    """Whether it sealed the shard itself, after another's commits too, or found it sealed."""
    stage = Stage(tmp_path, [*ROWS, {"prompt": ""}], **{"job.commit_images": 1})
    early = opened(stage.small.store, 0, worker="early")
    early.commit(replace(commit_of(early, [0], [1]), images=3, image_bytes=30, amount_nano=7))
    assert stage.run().error is None
    made = stage.link.seals
    stage.link = stage.new_link()
    assert stage.run(name="w2").error is None
    read = [sealed_shard(read_shard_state(stage.small.store, shard_id)) for shard_id in (0, 1)]
    assert sorted(made, key=lambda seal: seal.shard_id) == read
    assert sorted(stage.link.seals, key=lambda seal: seal.shard_id) == read
    assert [(seal.committed, seal.quarantined, seal.attempt) for seal in read] == [
        (3, 1, 2),
        (2, 1, 1),
    ]
    assert read[0].shares[0].used_amount == 7


def test_a_lease_lost_at_a_commit_is_given_back_and_nothing_is_doubled(tmp_path: Path) -> None:
    """Somebody opens the shard's next epoch just before this worker's seal."""
    stage = Stage(tmp_path, ROWS[:4], **{"job.commit_seconds": 1e6})
    stolen = threading.Event()

    class Contested(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            if key == "leases/00000/00000000/000002.json" and not stolen.is_set():
                stolen.set()
                heir = try_open(stage.small.store, 0, worker="heir")
                assert not isinstance(heir, ShardState)
                assert heir.state.done()[0] == {0, 1, 2, 3}
            super().put_if_absent(key, data)

    outcome = stage.run(store=Contested(stage.small.config.output.path, ONCE))
    assert outcome.error is None
    assert stolen.is_set()
    assert (0, False) in stage.link.returns
    assert stage.whole() == (4, 0, 0)


def test_a_revoked_shard_is_forgotten_and_its_requests_are_discarded(tmp_path: Path) -> None:
    """The worker is silent for too long, another takes the shard over and finishes it."""
    stage = Stage(tmp_path, [{"prompt": "slow", "steps": 300}] * 4, **{"job.commit_seconds": 1e6})
    first_tick, once = threading.Event(), threading.Lock()

    def steal() -> None:
        with once:
            if first_tick.is_set():
                return
            first_tick.set()
            stage.clock.now_s = 1000.0
            answer = stage.link.coordinator.acquire("thief")
            if isinstance(answer, Grant):
                heir = opened(stage.small.store, 0, worker="thief")
                heir.commit(commit_of(heir, []))
                stage.link.coordinator.gone("thief", crashed=False)
            assert stage.link.told.wait(PATIENCE_S)

    engine = Hooked(stage.small, before_tick=steal)
    outcome = stage.run(engine)
    assert outcome.error is None
    assert engine.discarded == 4
    assert len(engine.admitted) == 8
    assert stage.whole() == (4, 0, 0)


def test_a_silent_worker_that_is_granted_its_own_shard_again_does_not_hang(tmp_path: Path) -> None:
    """Its lease ran out unnoticed: it asks before it beats, and gets back what it lost."""
    stage = Stage(tmp_path, ROWS[:4])
    coordinator = stage.link.coordinator
    assert isinstance(coordinator.acquire("w1"), Grant)
    stage.clock.now_s = 1000.0
    assert isinstance(coordinator.acquire("other"), Grant)
    coordinator.gone("other", crashed=False)
    answer = coordinator.acquire("w1")
    assert answer == Wait(worker="w1"), "first it must hear what it lost"
    idle = WorkerProgress(
        phase="running", holding=Counts(), made=0, occupied=0, offered=0, lifetime_ns=0
    )
    assert coordinator.beat("w1", idle).revoked == (0,)
    assert isinstance(coordinator.acquire("w1"), Grant)


def test_the_only_worker_is_found_silent_and_is_not_heard_once_it_is_gone(tmp_path: Path) -> None:
    """Nobody else asks or beats, so that only looking at the run lets time pass."""
    stage = Stage(tmp_path, ROWS[:4])
    coordinator = stage.link.coordinator
    assert isinstance(coordinator.acquire("w1"), Grant)
    stage.clock.now_s = 60.0
    assert (coordinator.snapshot().silent, coordinator.snapshot().held) == ((), 1)
    stage.clock.now_s = 61.0
    assert (coordinator.snapshot().silent, coordinator.snapshot().held) == (("w1",), 0)
    coordinator.gone("w1", crashed=False)
    assert coordinator.acquire("w1") == Dismiss(worker="w1"), "a call that was under way"
    idle = WorkerProgress(
        phase="running", holding=Counts(), made=7, occupied=0, offered=0, lifetime_ns=0
    )
    assert coordinator.beat("w1", idle) == BeatReply(revoked=(), drain=True)
    snapshot = coordinator.snapshot()
    assert (snapshot.silent, snapshot.phases, snapshot.made) == ((), (), 0)
    answer = coordinator.acquire("w2")
    assert isinstance(answer, Grant)
    assert answer.suspicion == Suspicion(deaths=1), "the failure is counted once"


@pytest.mark.parametrize("failed", [False, True])
def test_a_shard_that_cannot_be_opened_is_given_back_before_the_worker_fails(
    tmp_path: Path, failed: bool
) -> None:
    stage = Stage(tmp_path, ROWS[:4])

    class Unopenable(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            if key.startswith("leases/"):
                raise ValueError("odd") if failed else StoreUnavailable("no answer")
            super().put_if_absent(key, data)

    store = Unopenable(stage.small.config.output.path, ONCE)
    if failed:
        with pytest.raises(ValueError, match="odd"):
            stage.run(store=store)
    else:
        outcome = stage.run(store=store)
        assert (outcome.error, outcome.retryable) == ("StoreUnavailable", True)
    assert stage.link.returns == [(0, failed)]


def test_a_shard_that_cannot_be_read_is_given_back_before_the_worker_fails(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, ROWS[:4])
    (tmp_path / "input" / "rows.parquet").unlink()
    outcome = stage.run()
    assert (outcome.error, outcome.retryable) == ("InputChanged", False)
    assert stage.link.returns == [(0, False)]


def test_a_job_ends_by_events_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own seal makes it ask again: it never waits for a poll's time to pass."""
    monkeypatch.setattr(feeder, "_ASK_AGAIN_S", 1e6)
    stage = Stage(tmp_path, **{"job.commit_seconds": 1e6})
    assert stage.run().error is None
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


def test_a_workers_life_begins_with_its_actor_and_is_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    monkeypatch.setattr(actors.ray, "get_gpu_ids", list)
    monkeypatch.setattr(actors, "price_here", lambda config, book: PRICE)
    monkeypatch.setattr(actors, "gpus_here", lambda: 0.0)
    actor = actors.WorkerActor(
        stage.small.config.to_mapping(),
        worker="w1",
        run=1,
        generation=0,
        model_revision="simulated",
        book=book_of(stage.small.config.pricing),
        coordinator=None,
    )
    actor._link = stage.link
    constructed_at = utc_now()
    assert actor.run().error is None
    (entry,) = stage.small.store.listing("workers/")
    assert entry.key == "workers/w1.json"
    stamp = stamp_from_json(stage.small.store.get(entry.key) or b"", entry.key)
    assert stamp.started_at < constructed_at
    assert stamp.closed


def test_an_actor_whose_store_is_away_ends_in_words_and_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    monkeypatch.setattr(actors.ray, "get_gpu_ids", list)
    monkeypatch.setattr(actors, "price_here", lambda config, book: PRICE)
    monkeypatch.setattr(actors, "gpus_here", lambda: 0.0)

    def away(store: Store) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(actors, "PlanReader", away)
    actor = actors.WorkerActor(
        stage.small.config.to_mapping(),
        worker="w1",
        run=1,
        generation=0,
        model_revision="simulated",
        book=book_of(stage.small.config.pricing),
        coordinator=None,
    )
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


class Watched(threading.Condition):
    """Knows by name which threads wait and have not been told of anything since."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[str] = set()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.add(threading.current_thread().name)
        return super().wait(timeout)

    def notify_all(self) -> None:
        self.waiting.clear()
        super().notify_all()


class Congested(Store):
    """Containers are written only once ``open`` is set; ``blocked`` is set by the first to wait."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ONCE)
        self.blocked, self.open = threading.Event(), threading.Event()

    def put_if_absent(self, key: str, data: bytes) -> None:
        if key.startswith("data/"):
            self.blocked.set()
            assert self.open.wait(PATIENCE_S)
        super().put_if_absent(key, data)


@pytest.mark.parametrize(
    ("shard_rows", "commit_images", "num_images"),
    [(16, 4, 1), (400, 4, 1), (40, 64, 1), (8, 1, 50)],
)
def test_memory_is_bounded_while_commits_are_stuck_and_the_job_ends_once_they_go_on(
    tmp_path: Path, shard_rows: int, commit_images: int, num_images: int
) -> None:
    """The engine has made what may wait, and stands still until the store answers again."""
    rows = [{"prompt": f"picture {n}", "num_images": num_images} for n in range(800 // num_images)]
    stage = Stage(
        tmp_path,
        rows,
        **{
            "output.format": "parquet",
            "input.shard_rows": shard_rows,
            "job.commit_images": commit_images,
            "job.commit_seconds": 1e6,
            "engine.max_batch": 4,
            "cluster.io_threads": 2,
        },
    )
    store = Congested(stage.small.config.output.path)
    worker = stage.worker(Hooked(stage.small), store=store)
    state, changed = worker._state, Watched()
    state.changed = changed
    outcomes: list[WorkerOutcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(worker.run()), name="engine", daemon=True
    )
    thread.start()
    assert store.blocked.wait(PATIENCE_S)
    with changed:
        assert changed.wait_for(
            lambda: state.crowded and not state._uploads and "engine" in changed.waiting, PATIENCE_S
        )
        held, made = len(state._held), state.made
    uploads, batch = 4 * 4 + 2 * 2, 4
    unfinished_rows = (batch + 1) * (num_images - 1)
    assert made <= 2 * commit_images + uploads + batch + unfinished_rows
    assert held <= 8
    store.open.set()
    thread.join(PATIENCE_S)
    assert [outcome.error for outcome in outcomes] == [None]
    assert stage.whole() == (len(rows), 0, 0)


def test_what_keeps_the_engine_waiting_is_committed_although_no_shard_is_due(
    tmp_path: Path,
) -> None:
    """Each shard lacks one slow row and an image to the number of a commit."""
    rows = [{"prompt": "x", "steps": 1 if n % 20 else 1000} for n in range(160)]
    stage = Stage(
        tmp_path,
        rows,
        **{
            "input.shard_rows": 20,
            "job.commit_images": 20,
            "job.commit_seconds": 1e6,
            "engine.max_batch": 8,
            "cluster.io_threads": 2,
        },
    )
    assert stage.run().error is None
    assert stage.whole() == (160, 0, 0)
    assert len(list(walk(stage.small.store, "commits/"))) > 8, "some shard was committed in parts"


def test_no_more_than_a_few_shards_are_held_while_none_can_be_sealed(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        [{"prompt": "x"}] * 320,
        **{"output.format": "parquet", "input.shard_rows": 16, "job.commit_images": 1000},
    )
    store = Congested(stage.small.config.output.path)
    worker = stage.worker(Hooked(stage.small), store=store)
    outcomes: list[WorkerOutcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(worker.run()), daemon=True)
    thread.start()
    assert store.blocked.wait(PATIENCE_S)
    with worker._state.changed:
        made_all = worker._state.changed.wait_for(
            lambda: len(stage.link.grants) == 8 and worker._state.made == 8 * 16, PATIENCE_S
        )
        assert made_all
    assert len(stage.link.grants) == 8
    store.open.set()
    thread.join(PATIENCE_S)
    assert [outcome.error for outcome in outcomes] == [None]
    assert stage.whole() == (320, 0, 0)


def test_shards_of_one_row_are_held_in_such_numbers_that_they_fill_a_batch(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        [{"prompt": "x"}] * 80,
        **{"output.format": "parquet", "input.shard_rows": 1, "job.commit_images": 1000},
    )
    store = Congested(stage.small.config.output.path)
    worker = stage.worker(Hooked(stage.small), store=store)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    assert store.blocked.wait(PATIENCE_S)
    with worker._state.changed:
        assert worker._state.changed.wait_for(lambda: worker._state.made == 64, PATIENCE_S)
    assert len(stage.link.grants) == 64
    store.open.set()
    thread.join(PATIENCE_S)
    assert stage.whole() == (80, 0, 0)
