"""What a run is told to have committed so far neither shrinks when workers go nor counts twice."""

from __future__ import annotations

from cluster.coordinator import Coordinator, Counts, WorkerProgress
from cluster.leases import Grant
from cluster.sealed_shard import SealedShard


def coordinator() -> Coordinator:
    return Coordinator(iter(range(2)), total=2, lease_s=60.0, clock=lambda: 0.0)


def take(of: Coordinator, worker: str) -> int:
    answer = of.acquire(worker)
    assert isinstance(answer, Grant)
    return answer.shard_id


def beat(of: Coordinator, worker: str, **rows: int) -> None:
    """``rows``: committed rows by shard, as ``s0=3``."""
    holding = {int(name[1:]): Counts(rows=count, images=count) for name, count in rows.items()}
    of.beat(
        worker,
        WorkerProgress(
            phase="running", holding=holding, made=0, occupied=0, offered=0, lifetime_ns=0
        ),
    )


def seal(of: Coordinator, worker: str, shard_id: int, rows: int) -> None:
    sealed = SealedShard(
        shard_id=shard_id,
        generation=0,
        epoch=2,
        attempt=1,
        committed=rows,
        quarantined=0,
        images=rows,
        image_bytes=1,
        shares=(),
    )
    of.sealed(worker, sealed)


def test_what_a_shard_holds_that_was_given_back_or_whose_worker_is_gone_still_counts() -> None:
    run = coordinator()
    assert (take(run, "ada"), take(run, "bob")) == (0, 1)
    beat(run, "ada", s0=3)
    beat(run, "bob", s1=4)
    run.returned("ada", 0, failed=False)
    beat(run, "ada")
    run.gone("bob", crashed=True)
    assert run.snapshot().counts == Counts(rows=7, images=7)


def test_the_next_holder_of_a_shard_tells_what_it_holds_from_then_on() -> None:
    run = coordinator()
    assert take(run, "ada") == 0
    beat(run, "ada", s0=3)
    run.gone("ada", crashed=False)
    assert take(run, "bob") == 0
    beat(run, "bob", s0=2)
    assert run.snapshot().counts.rows == 2, "a commit may stop counting when an epoch is opened"
    beat(run, "bob", s0=6)
    assert run.snapshot().counts.rows == 6


def test_a_sealed_shard_counts_once_also_where_a_late_beat_still_names_it() -> None:
    run = coordinator()
    assert take(run, "ada") == 0
    beat(run, "ada", s0=3)
    seal(run, "ada", 0, rows=5)
    assert run.snapshot().counts.rows == 5
    beat(run, "ada", s0=5)
    assert run.snapshot().counts.rows == 5
