"""The committer alone: which shard is served next, and what a lost coordinator does not stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shard_records import PRICE, STAMP, commit_of

from cluster.commit_writer import CommitWriter
from cluster.committer import Committer
from cluster.held_shard import HeldShard, open_shard
from cluster.ledger import Attribution, Payer
from cluster.records import Commit
from cluster.sealed_shard import SealedShard
from cluster.shard_log import ShardLog, ShardState, read_shard_state
from cluster.shard_work import Batch, ShardWork
from cluster.worker_state import WorkerState
from conf.errors import CoordinatorLost, RowRejected
from operators.engines import load_engine
from tests.small_jobs import SmallJob, prepare_small_job

BAD = RowRejected(stage="read", reason="bad", message="bad")


class Writer(CommitWriter):
    """The real one, with a word after each write."""

    def __init__(self, small: SmallJob, after: Callable[[int], None]) -> None:
        config = small.config
        super().__init__(
            small.store,
            config.output,
            engine=load_engine(config.engine, config.model).info,
            payer=Payer(worker="w1", node="here", price=PRICE),
            attribution=Attribution.of(config.job),
            energy=config.energy,
        )
        self._after = after

    def write(self, log: ShardLog, work: ShardWork, rows: Any, batch: Batch, stamp: Any) -> Commit:
        commit = super().write(log, work, rows, batch, stamp)
        self._after(log.shard_id)
        return commit


class Link:
    """A coordinator that is gone."""

    def sealed(self, worker: str, seal: SealedShard) -> None:
        raise CoordinatorLost("the run's coordinator died")


class Scene:
    """Two open shards of four rows in a worker's state."""

    def __init__(self, tmp_path: Path, **changes: Any) -> None:
        self.small = prepare_small_job(tmp_path, [{"prompt": "x"}] * 8, **changes)
        self.state = WorkerState()
        self.held = [self._open(shard_id) for shard_id in (0, 1)]
        for shard in self.held:
            self.state.hold(shard)

    def _open(self, shard_id: int) -> HeldShard:
        shard = self.small.plan.shard(shard_id)
        held = open_shard(self.small.store, shard, worker="w1", generation=0)
        assert not isinstance(held, ShardState)
        held.committed_at_s = float(shard_id)
        return held

    def commit(self, after: Callable[[int], None] = lambda shard_id: None) -> None:
        Committer(
            self.small.config.job,
            self.state,
            Writer(self.small, after),
            link=Link(),  # type: ignore[arg-type]
            worker="w1",
            stamp=lambda: STAMP,
        ).run()


def test_a_shard_that_always_has_something_ready_does_not_keep_others_waiting(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, **{"job.commit_seconds": 0})
    first, second = scene.held
    order: list[int] = []

    def after(shard_id: int) -> None:
        order.append(shard_id)
        if shard_id == 0 and first.work.unfinished():
            first.work.reject(first.work.unfinished()[0], None, BAD)
        if len(order) == 4:
            scene.state.leave()

    first.work.reject(0, None, BAD)
    second.work.reject(0, None, BAD)
    scene.commit(after)
    assert order == [0, 1, 0, 0, 0]


def test_a_worker_that_is_told_to_leave_commits_at_once_what_is_finished(tmp_path: Path) -> None:
    """It does not wait for its feeder or its uploads, which may wait for the store."""
    scene = Scene(tmp_path, **{"job.commit_seconds": 3600})
    scene.held[0].work.reject(0, None, BAD)
    scene.state.drain()
    scene.commit(after=lambda shard_id: scene.state.leave())
    assert read_shard_state(scene.small.store, 0).done() == (set(), {0})


def test_a_lost_coordinator_does_not_keep_finished_shards_from_being_sealed(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    for held in scene.held:
        for offset in range(4):
            held.work.reject(offset, None, BAD)
    scene.state.leave()
    scene.commit()
    assert scene.state.coordinator_lost
    for shard_id in (0, 1):
        state = read_shard_state(scene.small.store, shard_id)
        assert state.sealed
        assert state.done() == (set(), {0, 1, 2, 3})


def test_a_lease_lost_at_a_commit_leaves_the_other_shard_served(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first, second = scene.held
    foreign = replace(commit_of(first.log, [0]), images=1)
    ShardLog(scene.small.store, state=first.log.state, opening=first.log._opening).commit(foreign)
    for held in scene.held:
        held.work.reject(0, None, BAD)
    scene.state.leave()
    scene.commit()
    assert first.log.next_seq == 0
    assert second.log.next_seq == 1
    assert scene.state.holds() == [second]
    assert sorted(scene.state.take_leases()) == [0, 1]
