"""The checker finds an output whole as it was made, and each damage that is done to it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.coordinator import Snapshot
from cluster.supervisor import RunEnd
from jobs.finish import finish
from tests.chaos.bucket import FolderBucket
from tests.chaos.checker import Verdict, check
from tests.small_jobs import run_small_job

ROWS: list[dict[str, Any]] = [
    {"prompt": "a red circle", "num_images": 1},
    {"prompt": "two cats", "num_images": 2},
    {"prompt": "", "num_images": 1},
    {"prompt": "a green star", "num_images": 1},
    {"prompt": "a boat", "num_images": 1},
    {"prompt": "three fish", "num_images": 3},
]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2, "job.commit_images": 2}


def make_output(folder: Path, output_format: str) -> Path:
    small = run_small_job(folder, ROWS, **{**TINY, "output.format": output_format})
    unread = cast(Snapshot, None)  # a run's end is summed up from the store, not from its snapshot
    end = RunEnd(finished=True, reason="", snapshot=unread, restarts=0)
    finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=1.0)
    assert small.store.local_root is not None
    return small.store.local_root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("made"), "files")


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of the output, to be spoiled."""
    return shutil.copytree(made, tmp_path / "output")


def checked(output: Path) -> Verdict:
    return check(FolderBucket(output), ROWS)


@pytest.mark.parametrize("output_format", ["files", "webdataset", "parquet"])
def test_an_output_as_it_was_made_is_whole(tmp_path: Path, output_format: str) -> None:
    verdict = checked(make_output(tmp_path, output_format))
    assert verdict.problems == ()
    assert (verdict.lost, verdict.doubled, verdict.leftovers) == (0, 0, 0)
    assert (verdict.rows, verdict.committed, verdict.quarantined) == (6, 5, 1)
    assert len(verdict.images) == 8
    assert verdict.reasons == ("empty_prompt",)


def first(output: Path, pattern: str) -> Path:
    return min(output.glob(pattern))


def change_record(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def commit_of_images(output: Path) -> Path:
    return min(p for p in output.glob("commits/**/*.json") if json.loads(p.read_text())["images"])


def seal_of(output: Path, commit: Path) -> Path:
    """The newest opening of the commit's shard."""
    shard = json.loads(commit.read_text())["shard_id"]
    openings = {p: json.loads(p.read_text()) for p in output.glob("leases/**/*.json")}
    return max(p for p, opening in openings.items() if opening["shard_id"] == shard)


def remove_image(output: Path) -> None:
    first(output, "images/*/*.png").unlink()


def flip_byte(output: Path) -> None:
    path = first(output, "images/*/*.png")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def shorten_image(output: Path) -> None:
    path = first(output, "images/*/*.png")
    path.write_bytes(path.read_bytes()[:-1])


def swap_images(output: Path) -> None:
    one, two = sorted(output.glob("images/*/*.png"))[:2]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def remove_commit(output: Path) -> None:
    commit_of_images(output).unlink()


def accept_a_commit_less(output: Path) -> None:
    seal = seal_of(output, commit_of_images(output))
    change_record(seal, lambda record: record["accepted"].pop(0))


def accept_a_commit_twice(output: Path) -> None:
    seal = seal_of(output, commit_of_images(output))
    change_record(seal, lambda record: record["accepted"].append(record["accepted"][0]))


def open_the_seal(output: Path) -> None:
    seal = seal_of(output, commit_of_images(output))
    change_record(seal, lambda record: record.update(sealed=False))


def remove_an_opening(output: Path) -> None:
    first(output, "leases/**/000001.json").unlink()


def tear_a_record(output: Path) -> None:
    path = commit_of_images(output)
    path.write_text(path.read_text()[:40])


def misname_a_commit(output: Path) -> None:
    change_record(commit_of_images(output), lambda record: record.update(seq=7))


def claim_a_row_beyond(output: Path) -> None:
    change_record(commit_of_images(output), lambda record: record["rows"].append([90, 91]))


def change_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def renamed(output: Path, path: Path) -> None:
    """Make the commit that names this table name what it holds now."""
    data = path.read_bytes()
    key = path.relative_to(output).as_posix()
    for commit in output.glob("commits/**/*.json"):
        record = json.loads(commit.read_text())
        for name in ("metadata", "ledger", "quarantine"):
            if record[name] and record[name]["key"] == key:
                digest = hashlib.sha256(data).hexdigest()
                record[name] = {"key": key, "bytes": len(data), "sha256": digest}
                commit.write_text(json.dumps(record))


def replaced(table: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    index = table.schema.get_field_index(name)
    kind = table.schema.field(name)
    return table.set_column(index, kind, change(table[name]))


def change_a_table_that_is_named(output: Path) -> None:
    change_table(first(output, "metadata/*.parquet"), lambda table: table.slice(0, 0))


def forge_a_prompt(output: Path) -> None:
    path = first(output, "metadata/*.parquet")
    other = pa.array(["another"] * pq.read_table(path).num_rows)
    change_table(path, lambda table: replaced(table, "prompt", lambda _: other))
    renamed(output, path)


def list_an_image_twice(output: Path) -> None:
    path = first(output, "metadata/*.parquet")
    change_table(path, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    renamed(output, path)


def charge_a_unit_more(output: Path) -> None:
    path = output / "ledger/workers.parquet"
    change_table(path, lambda t: replaced(t, "amount_nano", lambda c: pc.add(c, 1)))


def lose_a_nanosecond(output: Path) -> None:
    path = output / "ledger/workers.parquet"
    change_table(path, lambda t: replaced(t, "gpu_ns", lambda c: pc.add(c, 1)))


def lose_a_line(output: Path) -> None:
    change_table(output / "ledger/workers.parquet", lambda table: table.slice(1))


def charge_in_fractions(output: Path) -> None:
    def as_floats(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("amount_nano")
        return table.set_column(index, "amount_nano", table["amount_nano"].cast(pa.float64()))

    change_table(output / "ledger/workers.parquet", as_floats)


def lose_a_charge(output: Path) -> None:
    path = first(output, "ledger/0*.parquet")
    change_table(path, lambda table: table.slice(1))
    renamed(output, path)


def forget_a_worker(output: Path) -> None:
    table = pq.read_table(output / "ledger/workers.parquet")
    pq.write_table(table.slice(0, 0), output / "ledger/workers.parquet")


def list_a_stranger(output: Path) -> None:
    def more(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table, table.slice(0, 1)])

    change_table(output / "metadata.parquet", more)


def remove_manifest(output: Path) -> None:
    first(output, "manifests/*.json").unlink()


def forge_the_manifest(output: Path) -> None:
    change_record(first(output, "manifests/*.json"), lambda record: record.update(cost="0.1"))


def empty_the_quarantine(output: Path) -> None:
    path = first(output, "quarantine/*.parquet")
    change_table(path, lambda table: table.slice(0, 0))
    renamed(output, path)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (remove_image, "it is missing"),
        (flip_byte, "its sha256 is another"),
        (shorten_image, "bytes, not"),
        (swap_images, "image 000000001-0 in"),
        (remove_commit, "cannot be read"),
        (accept_a_commit_less, "is in no state"),
        (accept_a_commit_twice, "counts 2 times"),
        (open_the_seal, "is not sealed"),
        (remove_an_opening, "epochs [2]"),
        (tear_a_record, "is not JSON"),
        (misname_a_commit, "says that it is"),
        (claim_a_row_beyond, "beyond its shard"),
        (change_a_table_that_is_named, "named by"),
        (forge_a_prompt, "another prompt than its row"),
        (list_an_image_twice, "is there twice"),
        (charge_a_unit_more, "its lines say"),
        (lose_a_nanosecond, "its lines say"),
        (lose_a_line, "has the lines"),
        (charge_in_fractions, "is no integer"),
        (lose_a_charge, "the tables say"),
        (forget_a_worker, "has the lines {}"),
        (list_a_stranger, "metadata.parquet does not list"),
        (remove_manifest, "has no manifest"),
        (forge_the_manifest, "cost is 100000000 nano"),
        (empty_the_quarantine, "lists other rows"),
    ],
)
def test_a_spoiled_output_is_found_out(
    output: Path, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(output)
    assert any(named in problem for problem in checked(output).problems), checked(output).problems


@pytest.mark.parametrize("spoil", [remove_image, flip_byte, accept_a_commit_less])
def test_what_is_missing_or_damaged_counts_as_lost(
    output: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(output)
    assert checked(output).lost > 0


@pytest.mark.parametrize("spoil", [accept_a_commit_twice, list_an_image_twice])
def test_what_is_there_twice_counts_as_doubled(output: Path, spoil: Callable[[Path], None]) -> None:
    spoil(output)
    assert checked(output).doubled > 0


def test_objects_that_no_commit_names_are_leftovers_and_no_problem(output: Path) -> None:
    stray = output / "images/00000000-000009/000000000-0.png"
    stray.parent.mkdir()
    stray.write_bytes(b"of an attempt that was fenced")
    verdict = checked(output)
    assert verdict.problems == ()
    assert verdict.leftovers == 1


def test_a_row_of_the_input_that_the_plan_forgot_is_lost(output: Path) -> None:
    verdict = check(FolderBucket(output), [*ROWS, {"prompt": "one more"}])
    assert verdict.lost == 1
    assert "the plan has 6 rows; the input has 7" in verdict.problems


def test_a_ledger_above_the_manifests_cost_is_right_only_where_a_worker_outlived_it(
    output: Path,
) -> None:
    manifest = first(output, "manifests/*.json")
    change_record(manifest, lambda record: record.update(cost="0.000000001"))
    assert any("cost is 1 nano" in problem for problem in checked(output).problems)
    assert check(FolderBucket(output), ROWS, outlived=True).problems == ()
    change_record(manifest, lambda record: record.update(cost="1"))
    assert check(FolderBucket(output), ROWS, outlived=True).problems != ()
