"""What a worker does with its shards: sealed, given back, revoked, granted again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from shard_records import commit_of, opened, try_open

from cluster.coordinator import BeatReply, WorkerProgress
from cluster.leases import Dismiss, Grant, Wait
from cluster.shard_log import ShardState, read_shard_state
from cluster.store import Store
from cluster.suspicion import Suspicion
from cluster.totals import sealed_shard
from conf.errors import StoreUnavailable
from tests.one_worker import ROWS, Hooked, Stage
from tests.stores import ONCE

PATIENCE_S = 20.0


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
    idle = WorkerProgress(phase="running", holding={}, made=0, occupied=0, offered=0, lifetime_ns=0)
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
    idle = WorkerProgress(phase="running", holding={}, made=7, occupied=0, offered=0, lifetime_ns=0)
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
