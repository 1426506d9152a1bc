"""Verify: an output as it was made is whole; whatever is damaged afterwards is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import layout
from cluster.job_log import open_retry
from cluster.money import as_decimal
from cluster.records import Commit, commit_from_json, count_of, to_json
from cluster.tables import read_parquet, to_parquet
from conf.errors import OutputMissing
from jobs import shard_check
from jobs.finish import close_ledger
from jobs.run import report
from jobs.verify import Verification, report_lines, verify
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job, work_on
from tests.stores import walk

ROWS = [
    {"prompt": "a red circle", "num_images": 1},
    {"prompt": "two cats", "num_images": 2},
    {"prompt": "a green star", "num_images": 1},
    {"prompt": "", "num_images": 1},
    {"prompt": "a boat", "num_images": 1},
    {"prompt": "three fish", "num_images": 3},
]
FORMATS = ("files", "webdataset", "parquet")
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2, "job.commit_seconds": 1e6}


def made(tmp_path: Path, output_format: str = "files", **changes: Any) -> SmallJob:
    """Six rows in two shards, one of them empty: 8 images, 1 quarantined row."""
    return run_small_job(tmp_path, ROWS, **{"output.format": output_format, **TINY, **changes})


def write_manifest(small: SmallJob, generation: int = 0, **changes: object) -> None:
    totals = small.totals()
    close_ledger(small.store, small.job, totals)
    plain = {
        "rows": totals.rows,
        "committed": totals.committed,
        "quarantined": totals.quarantined,
        "images": totals.images,
        "image_bytes": totals.image_bytes,
        "shards": totals.shards,
        "cost": str(as_decimal(small.bill().total_amount)),
        **changes,
    }
    small.store.put_if_absent(layout.manifest(generation), json.dumps(plain).encode())


def place(small: SmallJob, key: str) -> Path:
    return Path(small.store.path(key))


def commits(small: SmallJob) -> dict[str, Commit]:
    return {
        entry.key: commit_from_json(small.store.get(entry.key) or b"", entry.key)
        for entry in walk(small.store, "commits/")
    }


def one_commit(small: SmallJob) -> tuple[str, Commit]:
    """A commit with images, of the first shard."""
    return next((k, c) for k, c in commits(small).items() if c.metadata is not None)


def metadata_key(commit: Commit) -> str:
    assert commit.metadata is not None
    return commit.metadata.key


def flip(path: Path, at: int = -40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(data)


def problems(small: SmallJob) -> str:
    found = verify(small.store, threads=2)
    assert not found.ok
    assert found.problem_count == len(found.problems)
    return "\n".join(found.problems)


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_finished_output_is_whole_in_every_format(tmp_path: Path, output_format: str) -> None:
    small = made(tmp_path, output_format)
    write_manifest(small)
    seen: list[tuple[int, int]] = []
    found = verify(small.store, threads=2, on_progress=lambda done, of: seen.append((done, of)))
    assert found.problems == ()
    assert found.ok
    assert found.finished
    assert (found.rows, found.committed, found.quarantined, found.pending) == (6, 5, 1, 0)
    assert (found.images, found.shards, found.sealed) == (8, 2, 2)
    assert found.objects >= 8
    assert seen == [(1, 2), (2, 2)]
    assert (
        report_lines(found)[-1] == "result     everything is there, once, and as it was committed"
    )


def test_an_unfinished_output_is_whole_and_says_how_many_rows_are_pending(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    found = verify(small.store)
    assert found.ok
    assert not found.finished
    assert (found.committed, found.pending) == (2, 4)
    assert report_lines(found)[-1] == (
        "result     what is there is whole; 4 rows are pending, go on with "
        f"imagemill resume {small.store.url}"
    )


def test_an_output_in_which_nothing_happened_yet_is_whole(tmp_path: Path) -> None:
    found = verify(prepare_small_job(tmp_path, ROWS, **TINY).store)
    assert found.ok
    assert found.pending == 6


def test_a_job_without_rows_is_whole(tmp_path: Path) -> None:
    found = verify(prepare_small_job(tmp_path, [], **TINY).store)
    assert found.ok
    assert (found.rows, found.shards) == (0, 0)


def test_a_folder_without_a_job_is_named(tmp_path: Path) -> None:
    small = made(tmp_path)
    place(small, layout.JOB).unlink()
    with pytest.raises(OutputMissing, match=r"no job at .*output"):
        verify(small.store)


def test_a_retried_output_is_whole(tmp_path: Path) -> None:
    small = made(tmp_path)
    write_manifest(small)
    open_retry(small.store, (0,), after=0)
    assert not verify(small.store).finished, "the retry's generation has no manifest yet"
    small = work_on(small, shards=[0], generation=1)
    write_manifest(small, generation=1)
    found = verify(small.store)
    assert found.problems == ()
    assert (found.committed, found.quarantined, found.finished) == (5, 1, True)


def test_a_flipped_byte_of_an_image_names_the_image(tmp_path: Path) -> None:
    small = made(tmp_path)
    image = next(walk(small.store, "images/")).key
    flip(place(small, image))
    assert problems(small).startswith(f"{image} has sha256 ")


def test_a_truncated_image_names_both_sizes(tmp_path: Path) -> None:
    small = made(tmp_path)
    image = next(walk(small.store, "images/"))
    place(small, image.key).write_bytes(b"short")
    assert f"{image.key} has 5 bytes; its row in metadata/" in problems(small)
    assert f"says {image.bytes}" in problems(small)


def test_a_deleted_image_is_named(tmp_path: Path) -> None:
    small = made(tmp_path)
    image = next(walk(small.store, "images/")).key
    small.store.delete(image)
    assert problems(small).startswith(f"{image} is missing although its row in metadata/")


@pytest.mark.parametrize("folder", ["metadata", "quarantine", "ledger"])
@pytest.mark.parametrize("damage", ["delete", "flip", "overwrite"])
def test_a_damaged_table_is_named(tmp_path: Path, folder: str, damage: str) -> None:
    small = made(tmp_path)
    key = small.store.listing(f"{folder}/")[0].key
    if damage == "delete":
        small.store.delete(key)
    elif damage == "flip":
        flip(place(small, key))
    else:
        place(small, key).write_bytes(b"not parquet")
    assert f"{key} " in problems(small)


@pytest.mark.parametrize(
    ("output_format", "folder"), [("webdataset", "shards"), ("parquet", "data")]
)
@pytest.mark.parametrize("damage", ["delete", "overwrite"])
def test_a_container_that_is_gone_or_another_file_is_named(
    tmp_path: Path, output_format: str, folder: str, damage: str
) -> None:
    small = made(tmp_path, output_format)
    key = small.store.listing(f"{folder}/")[0].key
    if damage == "delete":
        small.store.delete(key)
        assert f"{key} is missing although its commit commits/" in problems(small)
    else:
        place(small, key).write_bytes(b"x" * 2048)
        found = problems(small)
        assert f"{key} has 2048 bytes; its commit commits/" in found
        assert f"{key} cannot be opened" in found or f"{key} member" in found


def test_a_flipped_byte_in_a_tar_names_the_tar_and_the_image_in_it(tmp_path: Path) -> None:
    small = made(tmp_path, "webdataset")
    key = small.store.listing("shards/")[0].key
    flip(place(small, key), at=700)
    found = problems(small)
    assert f"{key} has sha256 " in found
    assert f"{key} member 000000000-0.png has sha256 " in found


def test_a_dropped_commit_of_a_sealed_shard_is_named(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, _ = one_commit(small)
    small.store.delete(key)
    assert f"shard 0: {key} is listed by an opening record but does not exist" in problems(small)


def test_a_commit_record_that_is_no_record_is_named(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, _ = one_commit(small)
    place(small, key).write_bytes(b"{}")
    assert f"shard 0: {key} is damaged: it holds no record of kind Commit" in problems(small)


def rewrite(small: SmallJob, key: str, commit: Commit) -> None:
    place(small, key).write_bytes(to_json(commit))


def rewrite_table(small: SmallJob, folder: str, changes: Mapping[str, Any]) -> tuple[str, str]:
    """Change the first row of a table and make the commit's sha256 agree: a consistent lie."""
    key, commit = one_commit(small)
    ref = getattr(commit, folder)
    table = read_parquet(place(small, ref.key).read_bytes())
    rows = table.to_pylist()
    rows[0].update(changes)
    data = to_parquet(pa.Table.from_pylist(rows, schema=table.schema))
    place(small, ref.key).write_bytes(data)
    lie = replace(ref, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    rewrite(small, key, replace(commit, **{folder: lie}))
    return key, ref.key


def test_metadata_of_a_row_that_its_commit_does_not_name(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, table = rewrite_table(small, "metadata", {"row_id": 77})
    assert f"{table} holds" in problems(small)
    assert f"its commit {key} names" in problems(small)


def test_an_image_index_that_jumps(tmp_path: Path) -> None:
    small = made(tmp_path)
    _, table = rewrite_table(small, "metadata", {"image_index": 5})
    assert f"{table} has images [5] of row 0; expected 0 to 0, each once" in problems(small)


def test_a_ledger_line_that_charges_more_than_its_commit(tmp_path: Path) -> None:
    small = made(tmp_path)
    _, table = rewrite_table(small, "ledger", {"amount_nano": 10**12, "gpu_ns": 1})
    assert f"the amount in {table} is 1000000" in problems(small)
    assert f"the device time in {table} is" in problems(small)


def test_a_ledger_line_of_an_image_that_is_not_there(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, table = rewrite_table(small, "ledger", {"image_id": "nobody"})
    assert f"{table} does not charge exactly the images of its commit {key}" in problems(small)


def test_a_quarantine_table_with_another_row(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, commit = next((k, c) for k, c in commits(small).items() if c.quarantine)
    assert commit.quarantine is not None
    empty = read_parquet(place(small, commit.quarantine.key).read_bytes()).slice(0, 0)
    place(small, commit.quarantine.key).write_bytes(to_parquet(empty))
    assert f"{commit.quarantine.key} lists 0 rows; its commit {key} quarantined 1" in problems(
        small
    )


def test_a_commit_that_counts_rows_twice(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, commit = one_commit(small)
    rewrite(small, key, replace(commit, quarantined=commit.rows))
    assert f"{key} names {count_of(commit.rows)}" in problems(small)
    assert "rows that count already" in problems(small)


def test_a_commit_of_a_row_beyond_its_shard(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, commit = one_commit(small)
    rewrite(small, key, replace(commit, rows=((0, 1), (9, 10))))
    assert f"{key} names row 9 of a shard of 4 rows" in problems(small)


def test_a_commit_under_another_ones_name(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, commit = one_commit(small)
    rewrite(small, key, replace(commit, epoch=9))
    named = layout.commit(0, 9, commit.seq)
    assert f"{key} says that it is {named}" in problems(small)


def test_a_commit_without_its_tables(tmp_path: Path) -> None:
    small = made(tmp_path)
    key, commit = one_commit(small)
    rewrite(small, key, replace(commit, metadata=None, ledger=None))
    assert f"{key} names no metadata object although it needs one" in problems(small)
    assert f"{key} names no ledger object although it needs one" in problems(small)


def test_a_seal_that_forgets_a_commit_leaves_rows_in_no_state(tmp_path: Path) -> None:
    small = made(tmp_path)
    key = small.store.listing(layout.openings(1))[-1].key
    plain = json.loads(place(small, key).read_bytes())
    place(small, key).write_bytes(json.dumps({**plain, "accepted": []}).encode())
    assert "shard 1 is sealed although 2 of its 2 rows are neither" in problems(small)


def test_a_manifest_that_says_something_else(tmp_path: Path) -> None:
    small = made(tmp_path)
    write_manifest(small, committed=6, cost="0.5")
    found = problems(small)
    assert "'committed' in manifests/000000.json is 6; expected 5" in found
    assert "'cost' in manifests/000000.json is 0.5; expected" in found


@pytest.mark.parametrize("cost", ["a lot", None, "NaN"])
def test_a_manifest_whose_cost_is_no_amount(tmp_path: Path, cost: object) -> None:
    small = made(tmp_path)
    write_manifest(small, cost=cost)
    assert f"'cost' in manifests/000000.json is {cost}; expected" in problems(small)


def test_a_worker_that_lived_on_after_the_manifest_is_billed_and_no_problem(tmp_path: Path) -> None:
    small = made(tmp_path)
    write_manifest(small)
    billed = small.bill().total_amount
    assert verify(small.store).outlived == ""
    assert report(small.store.url)
    (entry,) = small.store.listing(layout.WORKERS)
    stamp = json.loads(place(small, entry.key).read_bytes())
    later = {**stamp, "seq": stamp["seq"] + 1, "lifetime_ns": 2 * stamp["lifetime_ns"]}
    place(small, entry.key).write_bytes(json.dumps(later).encode())
    found = verify(small.store)
    assert found.problems == ()
    assert found.bill.total_ns == later["lifetime_ns"]
    before = f"workers lived on after the end, when the cost was {as_decimal(billed):f}: "
    renew = f"'imagemill report {small.store.url}' renews the ledger"
    assert f"outlived   {before}{renew}" in report_lines(found)
    assert report(small.store.url)
    assert verify(small.store).outlived == f"{before}the ledger has been renewed since"


@pytest.mark.parametrize(("left", "said"), [(0, "come to 0.000000000"), (None, "cannot be read")])
def test_lines_of_workers_that_are_missing_are_named(
    tmp_path: Path, left: int | None, said: str
) -> None:
    small = made(tmp_path)
    write_manifest(small)
    file = place(small, layout.WORKER_LEDGER)
    lines = pq.read_table(file)
    file.unlink()
    if left is not None:
        pq.write_table(lines.slice(0, left), file)
    (problem,) = verify(small.store).problems
    assert problem.startswith(f"the lines in ledger/workers.parquet {said}; expected 0.")
    assert problem.endswith(f"; 'imagemill report {small.store.url}' writes them anew")
    assert report(small.store.url)
    assert verify(small.store).problems == ()


def test_a_manifest_over_shards_that_are_not_sealed(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    write_manifest(small)
    assert "although only 1 of 2 shards are sealed" in problems(small)


def test_problems_are_counted_beyond_those_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_check, "MOST_PROBLEMS", 3)
    small = made(tmp_path)
    for entry in list(walk(small.store, "images/")):
        small.store.delete(entry.key)
    found: Verification = verify(small.store)
    assert len(found.problems) == 3
    assert found.problem_count == 8
    assert report_lines(found)[-2] == "problem    and 5 more"
    assert report_lines(found)[-1].startswith("result     8 problems: ")
