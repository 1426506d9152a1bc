"""Planning Parquet: files, columns, shards, and what is said when something does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_tables import Counting, columns, job_config, prompts, write_rows

from cluster.input_files import InputFiles
from cluster.plan_file import InputFile, PlanReader, write_plan
from cluster.reader import read_footer
from cluster.store import Store
from conf.errors import InputChanged, InputError
from jobs.plan import (
    PlannedJob,
    check_inputs_unchanged,
    choose_shard_rows,
    cut_shards,
    make_plan,
)


def plan_of(path: object, **changes: Any) -> PlannedJob:
    return make_plan(job_config(path, **changes), None)


def test_one_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "prompts.parquet", prompts(70))
    planned = plan_of(path)
    assert planned.rows == 70
    assert [(s.shard_id, s.first_row, s.rows, s.first_row_id) for s in planned.shards] == [
        (0, 0, 32, 0),
        (1, 32, 32, 32),
        (2, 64, 6, 64),
    ]
    assert planned.shard_count == 3
    assert planned.inputs[0].file == planned.inputs[0].source == str(path)
    assert planned.inputs[0].bytes == path.stat().st_size
    assert planned.problems == planned.warnings == ()


def test_folder_is_searched_and_sorted_by_path(tmp_path: Path) -> None:
    for name in ("b.parquet", "a/z.parquet", "a/_tmp.parquet", ".hidden.parquet", "_x/c.parquet"):
        write_rows(tmp_path / name, prompts(3))
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "notes.txt").write_text("nothing")
    planned = plan_of(tmp_path)
    assert [Path(i.file).name for i in planned.inputs] == ["z.parquet", "b.parquet"]
    assert [s.first_row_id for s in planned.shards] == [0, 3]
    assert [i.index for i in planned.inputs] == [0, 1]


def test_glob(tmp_path: Path) -> None:
    for name in ("p1.parquet", "p2.parquet", "q.parquet"):
        write_rows(tmp_path / name, prompts(3))
    assert len(plan_of(tmp_path / "p*.parquet").inputs) == 2
    assert len(plan_of(tmp_path / "*").inputs) == 3


def test_literal_brackets_are_no_glob(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p[1].parquet", prompts(3))
    assert plan_of(path).rows == 3


def test_memory_url() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(prompts(5)), sink)
    fsspec.filesystem("memory").pipe_file("/plan-in/p.parquet", sink.getvalue().to_pybytes())
    planned = plan_of("memory://plan-in")
    assert planned.rows == 5
    assert planned.inputs[0].file == "memory:///plan-in/p.parquet"
    assert read_footer(planned.inputs[0].file, InputFiles().open).rows == 5


def test_missing_prompt_column_names_what_there_is_and_the_likeliest(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "prompts.parquet", {"caption": ["x"], "id": ["1"]})
    with pytest.raises(InputError) as error:
        plan_of(path)
    assert str(error.value) == (
        f"{path} has no column 'prompt'; columns: caption, id. "
        "Map it with input.columns.prompt=caption"
    )


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ({"id": ["1"], "note": ["x"]}, "input.columns.prompt=note"),
        ({"id": ["1"], "negative_prompt": ["x"], "Text": ["x"]}, "input.columns.prompt=Text"),
        ({"n": [1]}, "None of them holds text"),
    ],
)
def test_likeliest_prompt_column(tmp_path: Path, table: dict[str, Any], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        plan_of(write_rows(tmp_path / "p.parquet", table))


def test_mapped_column_that_is_absent(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", {"prompt": ["x"], "random_seed": [1]})
    with pytest.raises(InputError, match=r"no column 'randomseed'.*input.columns.seed=random_seed"):
        plan_of(path, columns={"seed": "randomseed"})
    with pytest.raises(InputError, match=r"no column 'zzz'; columns: .*asked for by"):
        plan_of(path, columns={"width": "zzz"})
    assert plan_of(path, columns={"seed": "random_seed"}).rows == 1


def test_same_column_name_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"])] * 2, names=["prompt", "prompt"])
    with pytest.raises(InputError, match="several columns named 'prompt'"):
        plan_of(write_rows(tmp_path / "p.parquet", table))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.parquet", "does not exist"),
        ("no*.parquet", "matches no file that ends in"),
        ("", r"holds no file that ends in \.csv"),
    ],
)
def test_nothing_to_read(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=message):
        plan_of(tmp_path / name)


def test_unknown_ending_and_unknown_protocol(tmp_path: Path) -> None:
    path = tmp_path / "prompts.data"
    write_rows(path, prompts(2))
    with pytest.raises(InputError, match=r"cannot tell the format.*input\.format=parquet"):
        plan_of(path)
    assert plan_of(path, format="parquet").rows == 2
    with pytest.raises(InputError, match=r"cannot read input.path nonsense://x"):
        plan_of("nonsense://x")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_single_broken_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(50))
    data = {"truncated": path.read_bytes()[:-20], "text": b"hello world!", "empty": b""}[damage]
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"p\.parquet is no readable Parquet file"):
        plan_of(path)


def test_broken_file_among_several_is_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", prompts(3))
    (tmp_path / "b.parquet").write_bytes(b"broken")
    write_rows(tmp_path / "c.parquet", prompts(4))
    planned = plan_of(tmp_path)
    assert planned.rows == 7
    assert [i.rows for i in planned.inputs] == [3, 0, 4]
    assert "b.parquet is no readable Parquet file" in planned.problems[0]
    assert planned.warnings == (f"left out: {planned.problems[0]}",)
    assert [s.first_row_id for s in planned.shards] == [0, 3]


def test_only_broken_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(InputError, match=r"none of the 2 input files can be read; first: .*a.parq"):
        plan_of(tmp_path)


def test_empty_table_is_fine(tmp_path: Path) -> None:
    table = pa.table({"prompt": pa.array([], pa.string())})
    planned = plan_of(write_rows(tmp_path / "p.parquet", table))
    assert (planned.rows, planned.shard_count, list(planned.shards)) == (0, 0, [])
    assert "has no rows" in planned.warnings[0]


def test_warnings_for_collisions_and_prompts_that_are_no_text(tmp_path: Path) -> None:
    planned = plan_of(write_rows(tmp_path / "p.parquet", {"prompt": [1], "model": ["x"]}))
    assert "column 'prompt' holds int64; expected text" in planned.warnings[0]
    assert planned.warnings[1] == "the input's column 'model' is carried as 'input_model'"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, 32), (1, 32), (320_000, 32), (320_001, 33), (10**6, 100), (10**9, 4096)],
)
def test_shard_rows_by_input_size(rows: int, expected: int) -> None:
    assert choose_shard_rows(rows) == expected


def test_asked_shard_rows_win(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(10))
    assert [s.rows for s in plan_of(path, shard_rows=4).shards] == [4, 4, 2]


@given(counts=st.lists(st.integers(0, 50), max_size=8), shard_rows=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_every_row_is_in_exactly_one_shard(counts: list[int], shard_rows: int) -> None:
    inputs = [
        InputFile(index=i, file=str(i), source=str(i), bytes=0, fingerprint="", rows=rows)
        for i, rows in enumerate(counts)
    ]
    shards = list(cut_shards(inputs, shard_rows))
    assert [s.shard_id for s in shards] == list(range(len(shards)))
    rows = [(s.file, s.first_row + i) for s in shards for i in range(s.rows)]
    assert rows == [(item.file, row) for item in inputs for row in range(item.rows)]
    ids = [s.first_row_id + i for s in shards for i in range(s.rows)]
    assert ids == list(range(sum(counts)))
    assert all(1 <= s.rows <= shard_rows for s in shards)


def test_shards_depend_on_nothing_but_the_input(tmp_path: Path) -> None:
    for i in range(4):
        write_rows(tmp_path / "in" / f"{i}.parquet", prompts(50 + i))
    first = make_plan(job_config(tmp_path / "in", output="memory://one"), None)
    second = make_plan(job_config(f"{tmp_path}/in/*.parquet", output="memory://two"), None)
    assert list(first.shards) == list(second.shards)
    assert first.inputs == second.inputs


def test_planner_does_not_read_wide_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = pa.array([os.urandom(100_000) for _ in range(120)], pa.binary())
    path = write_rows(tmp_path / "p.parquet", pa.table(prompts(120)).append_column("wide", wide))
    assert path.stat().st_size > 11 * 2**20
    monkeypatch.setattr(InputFiles, "open", lambda self, file: Counting(file))
    Counting.total = 0
    assert plan_of(path).rows == 120
    assert Counting.total < 2.5 * 2**20


def stored(path: Path, output: Path) -> tuple[PlanReader, InputFiles]:
    store = Store(str(output))
    config = job_config(path, output=output)
    planned = make_plan(config, store)
    write_plan(store, planned.inputs, planned.shards)
    return PlanReader(store), InputFiles.of(config, store)


def test_unchanged_input_passes(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(5))
    reader, files = stored(path, tmp_path / "out")
    os.utime(path, (1, 1))
    check_inputs_unchanged(reader, files)


def test_changed_input_is_named_with_expected_and_found(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(5))
    reader, files = stored(path, tmp_path / "out")
    size = path.stat().st_size
    write_rows(path, prompts(6))
    with pytest.raises(
        InputChanged, match=rf"p\.parquet changed after.*expected {size} bytes.*found \d+ bytes"
    ):
        check_inputs_unchanged(reader, files)


def test_same_size_other_content_is_a_change(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(5))
    reader, files = stored(path, tmp_path / "out")
    write_rows(path, prompts(5, start=4))
    with pytest.raises(InputChanged):
        check_inputs_unchanged(reader, files)


def test_large_file_touched_in_the_middle_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "p.bin"
    path.write_bytes(bytes(3 * 2**20))
    before = InputFiles().fingerprint(str(path))
    with path.open("r+b") as file:
        file.seek(3 * 2**19)
        file.write(b"x")
    os.utime(path, (2, 2))
    assert InputFiles().fingerprint(str(path)) != before


def test_vanished_input(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(5))
    reader, files = stored(path, tmp_path / "out")
    path.unlink()
    with pytest.raises(InputChanged, match=r"p\.parquet is gone; expected \d+ bytes"):
        check_inputs_unchanged(reader, files)


def test_column_defaults_are_the_canonical_names() -> None:
    assert columns().prompt == "prompt"
    assert columns(prompt="caption").prompt == "caption"
