"""What the threads of a worker share, one event after the other."""

from __future__ import annotations

from cluster.held_shard import HeldShard, open_shard
from cluster.worker_state import WorkerState
from tests.small_jobs import SmallJob, prepare_small_job


def hold(small: SmallJob, state: WorkerState) -> HeldShard:
    assert state.lease(0)
    held = open_shard(small.store, small.plan.shard(0), worker="w1", generation=0)
    assert isinstance(held, HeldShard)
    state.hold(held)
    return held


def test_a_shard_that_is_revoked_and_then_sealed_does_not_stop_the_feeder(tmp_path) -> None:
    state = WorkerState()
    held = hold(prepare_small_job(tmp_path, [{"prompt": "x"}]), state)
    state.revoke([0])
    state.done(held)
    assert state.forget_revoked() == []
    state.dismiss()
    assert state.next_requests(room=1, busy=False) is None, "nothing is held: the work is over"
    assert state._wants_shard()


def test_a_commit_that_lost_its_lease_does_not_revoke_a_later_hold_of_the_shard(tmp_path) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "x"}])
    state = WorkerState()
    first = hold(small, state)
    state.revoke([0])
    assert state.forget_revoked() == [first]
    state.release(0)
    second = hold(small, state)
    state.revoke_hold(first)
    assert state.holds() == [second]


def test_more_is_to_come_while_rows_are_queued_or_shards_are_granted() -> None:
    state = WorkerState()
    assert state.more_to_come
    state.answered(nothing_free=True)
    assert not state.more_to_come
    state.answered(nothing_free=False)
    assert state.more_to_come
    state.drain()
    assert not state.more_to_come
