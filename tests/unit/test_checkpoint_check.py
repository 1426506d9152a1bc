"""Commands and checkpoints: verify never believes one and says where it differs from the records;
reports believe it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster import layout
from cluster.checkpoint import add_checkpoint
from cluster.job_log import open_retry
from cluster.sealed_shard import SealedShard
from cluster.shard_log import read_shard_state
from cluster.totals import sealed_shard
from conf.errors import CorruptOutput
from jobs.report import top_reasons
from jobs.verify import verify
from tests.small_jobs import SmallJob, run_small_job, work_on
from tests.stores import walk

ROWS = [{"prompt": text} for text in ("a", "b", "", "d", "e", "f", "g", "h", "i")]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def seal(small: SmallJob, shard_id: int) -> SealedShard:
    return sealed_shard(read_shard_state(small.store, shard_id))


def checkpointed(tmp_path: Path) -> SmallJob:
    """Three shards, one of them with a quarantined row; two are in a checkpoint."""
    small = run_small_job(tmp_path, ROWS, **TINY)
    add_checkpoint(small.store, [seal(small, 0), seal(small, 1)])
    return small


def problems(small: SmallJob) -> tuple[str, ...]:
    return verify(small.store, threads=2).problems


def test_a_checkpoint_that_says_what_the_records_say_is_no_problem(tmp_path: Path) -> None:
    small = checkpointed(tmp_path)
    assert problems(small) == ()
    open_retry(small.store, (0,), after=0)
    assert problems(small) == (), "the retry is asked for"
    small = work_on(small, shards=[0], generation=1)
    assert problems(small) == (), "the row of the retried shard holds no more"
    add_checkpoint(small.store, [seal(small, 0)])
    assert problems(small) == (), "the shard is checkpointed anew"


@pytest.mark.parametrize(
    "name", ["committed", "quarantined", "images", "image_bytes", "attempt", "epoch"]
)
def test_a_number_that_differs_from_the_records_is_named(tmp_path: Path, name: str) -> None:
    small = checkpointed(tmp_path)
    true = seal(small, 1)
    # of a later generation, so that the merge prefers it
    add_checkpoint(small.store, [replace(true, generation=1, **{name: 77})])
    assert problems(small) == (
        "'generation' of shard 1 in checkpoints/000002.parquet is 1; expected 0",
        f"'{name}' of shard 1 in checkpoints/000002.parquet is 77; expected {getattr(true, name)}",
    )


def test_a_share_that_differs_from_the_records_is_named(tmp_path: Path) -> None:
    small = checkpointed(tmp_path)
    true = seal(small, 1)
    share = replace(true.shares[0], used_ns=5)
    add_checkpoint(small.store, [replace(true, generation=1, shares=(share,))])
    assert problems(small)[1].startswith(
        f"'shares' of shard 1 in checkpoints/000002.parquet is [('{share.worker}', 5, "
    )


def test_a_lifetime_that_no_record_shows_is_named(tmp_path: Path) -> None:
    small = checkpointed(tmp_path)
    true = seal(small, 2)
    share = replace(true.shares[0], stamp=replace(true.shares[0].stamp, lifetime_ns=10**18))
    add_checkpoint(small.store, [replace(true, shares=(share,))])
    assert problems(small) == (
        f"checkpoints/000002.parquet has worker {share.worker} live for {10**18} ns; no commit and "
        "no stamp of it says so",
    )


def test_shards_that_are_not_sealed_or_not_planned_are_named(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    true = seal(small, 0)
    add_checkpoint(small.store, [replace(true, shard_id=shard_id) for shard_id in (1, 9)])
    assert problems(small) == (
        "checkpoints/000001.parquet has shard 1, which is not sealed",
        "checkpoints/000001.parquet has shard 9, which is not in the plan",
    )


def test_a_reopened_shard_that_no_retry_names_is_named(tmp_path: Path) -> None:
    """Its row is trusted by others, who learn of a new generation from the retry alone."""
    small = checkpointed(tmp_path)
    open_retry(small.store, (1,), after=0)
    work_on(small, shards=[0], generation=1)
    assert problems(small)[0] == (
        "'generation' of shard 0 in checkpoints/000001.parquet is 0; expected 1"
    )


def test_a_damaged_newest_checkpoint_is_named_and_nothing_else_suffers(tmp_path: Path) -> None:
    small = checkpointed(tmp_path)
    Path(small.store.path(layout.checkpoint(1))).write_bytes(b"no parquet")
    (problem,) = problems(small)
    assert problem.startswith("checkpoints/000001.parquet is damaged: ")
    assert problem.endswith("delete it, since it only repeats what the shards' own records say")
    small.store.delete(layout.checkpoint(1))
    assert problems(small) == ()


def test_reasons_are_read_only_of_shards_that_may_hold_rejected_rows(tmp_path: Path) -> None:
    small = checkpointed(tmp_path)
    for entry in walk(small.store, layout.openings(1)):
        small.store.put(entry.key, b"not a record")
    (reason,) = top_reasons(small.store, small.plan, 9)
    assert (reason.reason, reason.rows) == ("empty_prompt", 1)
    small.store.delete(layout.checkpoint(1))
    with pytest.raises(CorruptOutput, match=r"^leases/00000/00000001/000002\.json is damaged"):
        top_reasons(small.store, small.plan, 9)


def test_shards_in_a_checkpoint_are_read_all_the_same(tmp_path: Path) -> None:
    small = checkpointed(tmp_path)
    (entry, *_) = small.store.listing(layout.commits(0))
    small.store.delete(entry.key)
    assert any(entry.key in problem for problem in problems(small))
