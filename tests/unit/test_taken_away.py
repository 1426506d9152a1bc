"""A worker whose machine is taken away, or whose run has been taken over by a later one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster import layout
from cluster.coordinator import BeatReply, WorkerProgress
from cluster.leases import Grant
from tests.one_worker import Hooked, Stage
from tests.small_jobs import begin_run

PATIENCE_S = 20.0
QUICK_AND_SLOW: list[dict[str, Any]] = [{"prompt": "quick", "steps": 1}] + [
    {"prompt": "slow", "steps": 1000}
] * 3
PATIENT = {"job.commit_seconds": 1e6}


def progress(**known: Any) -> WorkerProgress:
    return WorkerProgress(
        phase="running",
        holding={},
        made=0,
        occupied=0,
        offered=0,
        lifetime_ns=0,
        **known,
    )


def test_a_worker_that_is_told_to_go_commits_what_is_finished_and_may_be_replaced(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, QUICK_AND_SLOW, **PATIENT)
    ticks = iter(range(10**9))

    def told_at_the_third() -> None:
        if next(ticks) == 2:
            worker.preempt("its process was told to end (SIGTERM)")

    worker = stage.worker(Hooked(stage.small, before_tick=told_at_the_third))
    outcome = worker.run()
    assert (outcome.error, outcome.retryable) == ("Preempted", True)
    assert outcome.message == "its process was told to end (SIGTERM)"
    assert stage.whole() == (1, 0, 3)
    assert stage.link.returns == [(0, False)], "given back, and no attempt is counted"


def test_a_worker_hears_from_the_coordinator_that_its_node_is_being_taken_away(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, QUICK_AND_SLOW, **PATIENT)
    ticks = iter(range(10**9))

    def sent_away_at_the_third() -> None:
        if next(ticks) == 2:
            stage.link.coordinator.preempt("w1")
            assert stage.link.told.wait(PATIENCE_S)

    outcome = stage.run(Hooked(stage.small, before_tick=sent_away_at_the_third))
    assert (outcome.error, outcome.retryable) == ("Preempted", True)
    assert outcome.message == "its node is being taken away"
    assert stage.whole() == (1, 0, 3)
    assert stage.run(name="w2").error is None
    assert stage.whole() == (4, 0, 0)


def test_a_worker_that_was_told_to_go_before_it_began_makes_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    engine = Hooked(stage.small)
    worker = stage.worker(engine)
    worker.preempt("at once")
    assert worker.run().error == "Preempted"
    assert (engine.admitted, stage.link.grants) == ([], [])
    assert stage.whole() == (0, 0, 6)


def test_only_the_worker_that_has_to_go_is_told_so_and_it_is_seen_to_leave(tmp_path: Path) -> None:
    coordinator = Stage(tmp_path).link.coordinator
    coordinator.preempt("w1")
    assert coordinator.beat("w1", progress()) == BeatReply(revoked=(), drain=False, preempted=True)
    assert coordinator.beat("w2", progress()) == BeatReply(revoked=(), drain=False)
    assert coordinator.snapshot().preempted == ()
    coordinator.beat("w1", progress(preempted=True))
    assert coordinator.snapshot().preempted == ("w1",)


def test_commits_are_counted_on_when_the_worker_that_made_them_is_gone(tmp_path: Path) -> None:
    coordinator = Stage(tmp_path).link.coordinator
    coordinator.beat("w1", progress(commits=3))
    coordinator.beat("w2", progress(commits=2))
    coordinator.gone("w1", crashed=True)
    assert coordinator.snapshot().commits == 5
    coordinator.beat("w3", progress(commits=1))
    assert coordinator.snapshot().commits == 6


def test_a_worker_reports_the_commits_that_landed(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.run().error is None
    landed = sum(len(stage.small.store.listing(layout.commits(shard))) for shard in (0, 1))
    assert stage.link.coordinator.snapshot().commits == landed > 0


def test_a_worker_opens_nothing_more_once_a_later_run_has_begun(tmp_path: Path) -> None:
    """Two runs that live would open each other's shards anew for ever, and finish none."""
    stage = Stage(tmp_path)
    store = stage.small.store
    assert begin_run(store).run == 1
    assert isinstance(stage.link.coordinator.acquire("another of run 1"), Grant)
    assert begin_run(store).run == 2
    outcome = stage.run()
    assert (outcome.error, outcome.message) == ("TakenOver", "run 2 has taken over")
    assert not outcome.retryable, "no other worker of this run is to be hired"
    assert store.folders("leases/") == []
    assert [failed for _, failed in stage.link.returns] == [False]
