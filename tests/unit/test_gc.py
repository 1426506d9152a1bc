"""Garbage collection removes what no commit counts, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import layout
from cluster.lifetime import utc_now
from cluster.names import Names
from cluster.shard_log import ShardLog
from cluster.store import Entry, Store
from conf.errors import CorruptOutput, StoreRefused
from jobs import gc
from jobs.cli import main
from jobs.gc import collect, collected_lines
from jobs.verify import verify
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job
from tests.stores import walk

ROWS = [{"prompt": text} for text in ("a", "b", "", "d", "e", "f")]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
FORMATS = ("files", "webdataset", "parquet")


def made(tmp_path: Path, **changes: Any) -> SmallJob:
    return run_small_job(tmp_path, ROWS, **{**TINY, **changes})


def keys(store: Store) -> set[str]:
    return {entry.key for entry in walk(store, "") if not entry.key.startswith(".")}


def litter(store: Store, shard_id: int, epoch: int) -> set[str]:
    """What an attempt leaves behind when it dies before its commit."""
    left = {
        layout.attempt_object(folder, shard_id, epoch, 7, extension)
        for folder, extension in (
            ("metadata", "parquet"),
            ("quarantine", "parquet"),
            ("ledger", "parquet"),
            ("data", "parquet"),
            ("shards", "tar"),
        )
    } | {layout.image(shard_id, epoch, "lost", "png")}
    for key in left:
        store.put_if_absent(key, b"12345")
    return left


@pytest.mark.parametrize("output_format", FORMATS)
def test_nothing_of_a_whole_output_is_removed(tmp_path: Path, output_format: str) -> None:
    small = made(tmp_path, **{"output.format": output_format})
    before = keys(small.store)
    collected = collect(small.store, dry_run=False)
    assert (collected.objects, collected.bytes) == (0, 0)
    assert keys(small.store) == before
    assert collected.kept == sum(k.startswith(layout.ATTEMPT_PREFIXES) for k in before)


@pytest.mark.parametrize("output_format", FORMATS)
def test_what_a_dead_attempt_left_in_a_sealed_shard_goes(
    tmp_path: Path, output_format: str
) -> None:
    small = made(tmp_path, **{"output.format": output_format})
    before = keys(small.store)
    left = litter(small.store, 0, 1) | litter(small.store, 1, 1)
    collected = collect(small.store, dry_run=False)
    assert (collected.objects, collected.bytes) == (len(left), 5 * len(left))
    assert keys(small.store) == before
    assert verify(small.store).ok


def test_only_the_shards_that_are_named_are_looked_into(tmp_path: Path) -> None:
    small = made(tmp_path)
    kept = litter(small.store, 0, 1)
    left = litter(small.store, 1, 1)
    assert collect(small.store, dry_run=False, among=iter([])).objects == 0
    assert collect(small.store, dry_run=False, among=iter([1, 7])).objects == len(left)
    assert kept <= keys(small.store)


class Recording(Store):
    """Notes the shards in what each listing of attempts' objects holds."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.held: list[set[int]] = []

    def inside(self, prefix: str, names: Names | None = None) -> tuple[list[Entry], list[str]]:
        entries, folders = super().inside(prefix, names)
        if prefix in layout.ATTEMPT_PREFIXES:
            found = [entry.key for entry in entries] + [f"{prefix}{name}/" for name in folders]
            self.held.append({a[0] for a in map(layout.attempt_of, found) if a is not None})
        return entries, folders


def test_no_listing_holds_the_names_of_more_shards_than_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "_BLOCK_SHARDS", 2)
    small = made(tmp_path, **{"input.shard_rows": 1})
    left = litter(small.store, 0, 1) | litter(small.store, 4, 1) | litter(small.store, 5, 1)
    store = Recording(small.store.url)
    assert collect(store, dry_run=False).objects == len(left)
    assert max(map(len, store.held)) == 2
    assert set.union(*store.held) == set(range(6))
    assert not left & keys(store)


def test_names_of_shards_that_are_not_meant_are_never_held(tmp_path: Path) -> None:
    small = made(tmp_path, **{"input.shard_rows": 1})
    left = litter(small.store, 1, 1) | litter(small.store, 4, 1)
    store = Recording(small.store.url)
    assert collect(store, dry_run=False, among=iter([1, 4])).objects == len(left)
    assert set.union(*store.held) == {1, 4}


def test_a_dry_run_removes_nothing_and_says_what_it_would(tmp_path: Path) -> None:
    small = made(tmp_path)
    left = litter(small.store, 0, 1)
    before = keys(small.store)
    collected = collect(small.store, dry_run=True)
    assert collected.objects == len(left)
    assert keys(small.store) == before
    assert collected_lines(collected, "my job") == [
        f"would remove 6 objects (30 bytes) that no commit counts; {collected.kept} stay",
        "do it with: imagemill gc 'my job' --delete",
    ]
    (done,) = collected_lines(collect(small.store, dry_run=False), "my job")
    assert done.startswith("removed 6 objects (30 bytes)")
    (nothing,) = collected_lines(collect(small.store, dry_run=True), "my job")
    assert nothing.startswith("would remove 0 objects")


def opened(store: Store, shard_id: int) -> ShardLog:
    log = ShardLog.open(store, shard_id, worker="w", generation=0, now=utc_now)
    assert isinstance(log, ShardLog)
    return log


def test_an_open_epoch_may_still_commit_its_objects_so_they_stay(tmp_path: Path) -> None:
    store = prepare_small_job(tmp_path, ROWS, **TINY).store
    opened(store, 0)
    older = litter(store, 0, 1)
    assert collect(store, dry_run=False).objects == 0
    opened(store, 0)
    newer = litter(store, 0, 2)
    assert collect(store, dry_run=False).objects == len(older)
    assert newer <= keys(store)
    assert not older & keys(store)


def test_objects_of_a_shard_that_nobody_opened_stay(tmp_path: Path) -> None:
    store = prepare_small_job(tmp_path, ROWS, **TINY).store
    left = litter(store, 1, 1)
    assert collect(store, dry_run=False).kept == len(left)
    assert left <= keys(store)


def test_objects_of_a_commit_that_no_longer_counts_go(tmp_path: Path) -> None:
    """A zombie's commit that landed after the next opening is on no list."""
    small = made(tmp_path)
    log = opened(prepare_small_job(tmp_path / "other", ROWS, **TINY).store, 0)
    store = log._store
    opened(store, 0)
    key = next(e.key for e in walk(small.store, "commits/00000/00000000/"))
    store.put_if_absent(key, small.store.get(key) or b"")
    left = litter(store, 0, 1)
    assert collect(store, dry_run=False).objects == len(left)
    assert store.exists(key), "records are never removed"


def test_what_is_not_an_attempts_is_never_touched(tmp_path: Path) -> None:
    small = made(tmp_path)
    others = {
        layout.WORKER_LEDGER,
        "ledger/workers-000001.parquet",
        "images/README",
        "images/mine/a.png",
        "metadata/notes.txt",
        "notes/00000000-000001/x",
    }
    for key in others:
        small.store.put(key, b"mine")
    assert collect(small.store, dry_run=False).objects == 0
    assert others <= keys(small.store)


def test_a_shard_whose_metadata_cannot_be_read_keeps_everything(tmp_path: Path) -> None:
    small = made(tmp_path)
    left = litter(small.store, 0, 1)
    (key, *_) = sorted(k for k in keys(small.store) - left if k.startswith("metadata/00000000-"))
    Path(small.store.path(key)).write_bytes(b"damaged")
    with pytest.raises(
        CorruptOutput, match=rf"^{key}, named by commits/.*nothing of it was removed"
    ):
        collect(small.store, dry_run=False)
    assert left <= keys(small.store)


def test_scratch_files_go_once_they_are_an_hour_old(tmp_path: Path) -> None:
    small = made(tmp_path)
    root = small.store.local_root
    assert root is not None
    old = [root / ".tmp" / "4711-dead", root / ".probe-dead"]
    new = [root / ".tmp" / "4712-alive", root / ".probe-alive"]
    for path in old + new:
        path.write_bytes(b"123")
    for path in old:
        os.utime(path, (time.time() - 3700, time.time() - 3700))
    collected = collect(small.store, dry_run=True)
    assert (collected.objects, collected.bytes) == (2, 6)
    assert all(path.exists() for path in old)
    collect(small.store, dry_run=False)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in new)


def test_a_removal_that_is_refused_half_way_does_not_claim_that_nothing_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = made(tmp_path)
    litter(small.store, 0, 1)

    def refuse(store: Store, key: str) -> None:
        raise StoreRefused(f"cannot write {key}: these credentials may not delete")

    monkeypatch.setattr(Store, "delete", refuse)
    assert main(["gc", small.store.url, "--delete"]) == 3
    told = capsys.readouterr().err
    assert "these credentials may not delete; some may be removed already, all that counts is" in (
        told
    )
    assert told.endswith(f"go on with: imagemill gc {small.store.url} --delete\n")
