"""Reading a shard: the right rows, names, types, and what damage means."""

from __future__ import annotations

import datetime
import decimal
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_tables import DEFAULTS, columns, prompts, write_rows

from cluster.input_files import InputFiles
from cluster.metadata_columns import METADATA_COLUMNS, carried_names
from cluster.reader import ShardRows, read_shard, scan_columns
from cluster.records import Shard
from conf.errors import InputChanged, InputError, RowRejected, StoreUnavailable
from operators.request import parse_row

OPEN = InputFiles().open


def a_shard(path: Path | str, rows: int, first_row: int = 0) -> Shard:
    return Shard(shard_id=0, file=str(path), first_row=first_row, rows=rows, first_row_id=first_row)


def read(path: Path, table: dict[str, Any] | pa.Table, **mapped: str) -> ShardRows:
    table = pa.table(table) if isinstance(table, dict) else table
    write_rows(path, table)
    return read_shard(a_shard(path, table.num_rows), columns(**mapped), OPEN)


@given(
    counts=st.integers(1, 60),
    group=st.integers(1, 20),
    cut=st.tuples(st.integers(0, 59), st.integers(0, 59)),
)
@settings(max_examples=40, deadline=None)
def test_just_the_range_is_read(counts: int, group: int, cut: tuple[int, int]) -> None:
    first, last = sorted(min(c, counts - 1) for c in cut)
    sink = pa.BufferOutputStream()
    table = pa.table({"prompt": [str(i) for i in range(counts)], "place": range(counts)})
    pq.write_table(table, sink, row_group_size=group)
    data = sink.getvalue().to_pybytes()
    shard = a_shard("x", last - first + 1, first)
    rows = read_shard(shard, columns(), lambda _: io.BytesIO(data))
    assert rows.rows == shard.rows
    assert rows.extras["place"].to_pylist() == list(range(first, last + 1))
    assert [rows.known(i)["prompt"] for i in range(rows.rows)] == [
        str(i) for i in range(first, last + 1)
    ]


def test_range_inside_a_large_row_group(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(5000))
    rows = read_shard(a_shard(path, 100, 2000), columns(), OPEN)
    assert rows.known(99) == {"prompt": "a red circle 2099"}


def test_only_the_needed_row_groups_are_read(tmp_path: Path) -> None:
    wide = pa.array([np.random.default_rng(i).bytes(50_000) for i in range(100)])
    table = pa.table(prompts(100)).append_column("wide", wide)
    path = write_rows(tmp_path / "p.parquet", table, row_group_size=10)
    seen = 0

    class Watched(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal seen
            data = super().read(-1 if size is None else size)
            seen += len(data)
            return data

    rows = read_shard(a_shard(path, 10, 40), columns(), Watched)
    assert rows.extras["wide"].to_pylist() == wide.to_pylist()[40:50]
    assert seen < 1_500_000


def test_known_columns_come_under_canonical_names(tmp_path: Path) -> None:
    table = {"caption": ["x"], "w": [128], "key": ["k1"], "prompt": ["own"], "labels": [["a"]]}
    rows = read(tmp_path / "p.parquet", table, prompt="caption", width="w", id="key", tags="labels")
    assert rows.known(0) == {"prompt": "x", "width": 128}
    assert rows.label(0) == "k1"
    assert rows.extras.to_pylist() == [{"input_prompt": "own", "tags": ["a"]}]


def test_absent_columns_have_no_key_and_no_label(tmp_path: Path) -> None:
    rows = read(tmp_path / "p.parquet", prompts(2))
    assert rows.known(1) == {"prompt": "a red circle 1"}
    assert rows.label(1) is None
    assert (rows.extras.num_columns, rows.extras.num_rows) == (0, 2)


def test_extras_keep_their_types(tmp_path: Path) -> None:
    nested = pa.struct([("a", pa.list_(pa.int8())), ("b", pa.large_string())])
    extras = pa.table(
        {
            "big": pa.array(["x", None], pa.large_string()),
            "cat": pa.array(["u", "v"]).dictionary_encode(),
            "small": pa.array([1, None], pa.uint8()),
            "nested": pa.array([{"a": [1, None], "b": "q"}, None], nested),
            "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
            "when": pa.array([0, None], pa.timestamp("us", tz="UTC")),
            "money": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(9, 2)),
            "day": pa.array([datetime.date(2020, 1, 1), None]),
            "none": pa.nulls(2),
            "raw": pa.array([b"\xff", None], pa.large_binary()),
            "tags": pa.array([["a", "b"], None]),
        }
    )
    table = extras.append_column("prompt", pa.array(["x", "y"]))
    rows = read(tmp_path / "p.parquet", table)
    assert rows.extras.schema.equals(extras.schema)
    assert rows.extras.to_pylist() == extras.to_pylist()
    taken = rows.extras.take(pa.array([1, 0, 0]))
    assert taken.to_pylist() == [extras.to_pylist()[i] for i in (1, 0, 0)]


def test_notes_about_the_whole_input_table_are_not_carried(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["x"], "k": [1]}).replace_schema_metadata({"pandas": "{}"})
    assert not read(tmp_path / "p.parquet", table).extras.schema.metadata


def test_dictionaries_of_several_row_groups_can_be_taken_from(tmp_path: Path) -> None:
    chunks = [pa.array([f"c{i}"] * 2).dictionary_encode() for i in range(3)]
    table = pa.table({"prompt": ["x"] * 6, "cat": pa.chunked_array(chunks)})
    path = write_rows(tmp_path / "p.parquet", table, row_group_size=2)
    rows = read_shard(a_shard(path, 6), columns(), OPEN)
    assert rows.extras.take(pa.array([5, 0]))["cat"].to_pylist() == ["c2", "c0"]


def test_colliding_extras_are_carried_beside_the_metadata(tmp_path: Path) -> None:
    table = {"prompt": ["x"], "model": ["m"], "input_model": ["i"], "cost": [1], "other": [2]}
    rows = read(tmp_path / "p.parquet", table)
    assert rows.extras.to_pylist() == [
        {"input_input_model": "m", "input_model": "i", "input_cost": 1, "other": 2}
    ]
    assert not set(rows.extras.column_names) & set(METADATA_COLUMNS)


@given(
    st.lists(
        st.sampled_from([*METADATA_COLUMNS, "image", "input_id", "input_input_id", "x"]),
        unique=True,
    )
)
def test_carried_names_never_collide(names: list[str]) -> None:
    carried = carried_names(names)
    assert list(carried) == names
    assert len(set(carried.values())) == len(names)
    assert not set(carried.values()) & {*METADATA_COLUMNS, "image"}


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.decimal128(10, 2), pa.string()),
    ],
    ids=str,
)
def test_seed_of_any_number_type(tmp_path: Path, kind: pa.DataType) -> None:
    plain: Any = {"string": "7", "decimal128(10, 2)": decimal.Decimal(7)}.get(str(kind), 7)
    if str(kind) == "halffloat":
        plain = np.float16(7)
    table = {"prompt": ["x", "y"], "seed": pa.array([plain, None], kind)}
    rows = read(tmp_path / "p.parquet", table)
    assert parse_row(rows.known(0), row_id=0, defaults=DEFAULTS)[0].seed == 7
    assert rows.known(1)["seed"] is None
    parse_row(rows.known(1), row_id=1, defaults=DEFAULTS)


def test_seeds_keep_all_their_digits(tmp_path: Path) -> None:
    seeds = [2**63 - 1, 2**53 + 1]
    rows = read(tmp_path / "p.parquet", {"prompt": ["x", "y"], "seed": map_text(seeds)})
    assert [rows.known(i)["seed"] for i in range(2)] == seeds
    unsigned = {"prompt": ["x"], "seed": pa.array([2**64 - 1], pa.uint64())}
    known = read(tmp_path / "q.parquet", unsigned).known(0)
    with pytest.raises(RowRejected, match="seed is 18446744073709551615"):
        parse_row(known, row_id=0, defaults=DEFAULTS)


def map_text(values: list[int]) -> list[str]:
    return [f" {value}" for value in values]


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), "abc", True])
def test_what_is_no_seed_rejects_its_row(tmp_path: Path, value: Any) -> None:
    rows = read(tmp_path / "p.parquet", {"prompt": ["x"], "seed": [value]})
    with pytest.raises(RowRejected, match="seed is"):
        parse_row(rows.known(0), row_id=0, defaults=DEFAULTS)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_prompt_of_any_text_type(tmp_path: Path, kind: pa.DataType) -> None:
    array = pa.array(["x", None, "y"], kind)
    rows = read(tmp_path / "p.parquet", {"prompt": array})
    assert [rows.known(i)["prompt"] for i in range(3)] == ["x", None, "y"]


def test_dictionary_prompt(tmp_path: Path) -> None:
    rows = read(tmp_path / "p.parquet", {"prompt": pa.array(["x", None]).dictionary_encode()})
    assert [rows.known(i)["prompt"] for i in range(2)] == ["x", None]


def test_prompt_that_is_no_utf8_costs_its_own_row(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    rows = read(tmp_path / "p.parquet", {"prompt": bad})
    assert parse_row(rows.known(0), row_id=0, defaults=DEFAULTS)[0].prompt == "fine"
    with pytest.raises(RowRejected) as error:
        parse_row(rows.known(1), row_id=1, defaults=DEFAULTS)
    assert error.value.reason == "bad_prompt"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a/b", "a/b"), (7, "7"), (7.0, "7"), (7.5, "7.5"), (b"k\xff", "k\\xff"), (None, None)],
)
def test_label_is_the_id_as_text(tmp_path: Path, value: Any, text: str | None) -> None:
    rows = read(tmp_path / "p.parquet", {"prompt": ["x"], "id": [value]})
    assert rows.label(0) == text


def damaged(tmp_path: Path) -> Path:
    """Four row groups; the third one's data pages are overwritten."""
    noise = [np.random.default_rng(i).bytes(200).hex() for i in range(40)]
    path = write_rows(tmp_path / "p.parquet", {"prompt": noise}, row_group_size=10)
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * (chunk.total_compressed_size // 2))
    return path


def test_damaged_rows_are_rejected_and_the_others_are_not(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    with pytest.raises(RowRejected) as error:
        read_shard(a_shard(path, 10, 20), columns(), OPEN)
    assert (error.value.stage, error.value.reason) == ("read", "unreadable_rows")
    assert "p.parquet is damaged at rows 20 to 29" in error.value.message
    for first in (0, 10, 30):
        assert read_shard(a_shard(path, 10, first), columns(), OPEN).rows == 10


def test_damaged_compression_is_no_failure_of_the_store(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(2000), use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size // 2)
        file.write(b"\xff" * 200)
    with pytest.raises(RowRejected, match="damaged"):
        read_shard(a_shard(path, 2000), columns(), OPEN)


class Failing(io.FileIO):
    """Fails once the footer has been read."""

    error: OSError = OSError(5, "Input/output error")
    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > 1:
            raise self.error
        return super().read(-1 if size is None else size)


def opener(error: OSError) -> Callable[[str], BinaryIO]:
    def open_file(file: str) -> BinaryIO:
        failing: Any = Failing(file)
        failing.error = error
        return failing  # type: ignore[no-any-return]

    return open_file


def test_read_that_fails_in_the_store_is_retryable(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(2000))
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        read_shard(a_shard(path, 2000), columns(), opener(OSError(5, "Input/output error")))


def test_file_that_vanishes_while_it_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(2000))
    with pytest.raises(InputChanged, match="is gone"):
        read_shard(a_shard(path, 2000), columns(), opener(FileNotFoundError(2, "No such file")))


@pytest.mark.parametrize("change", ["gone", "shorter", "broken", "renamed"])
def test_file_that_changed_since_it_was_planned(tmp_path: Path, change: str) -> None:
    path = write_rows(tmp_path / "p.parquet", prompts(20))
    shard = a_shard(path, 10, 10)
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        write_rows(path, prompts(15))
    elif change == "broken":
        path.write_bytes(b"no more")
    else:
        write_rows(path, {"caption": ["x"] * 20})
    with pytest.raises(InputChanged, match=r"p\.parquet"):
        read_shard(shard, columns(), OPEN)


def test_store_that_does_not_open_the_file(tmp_path: Path) -> None:
    def open_file(file: str) -> BinaryIO:
        raise TimeoutError(110, "timed out")

    with pytest.raises(StoreUnavailable, match="timed out"):
        read_shard(a_shard("s3://b/x.parquet", 1), columns(), open_file)


def test_forbidden_file_is_an_input_error() -> None:
    def open_file(file: str) -> BinaryIO:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(InputError, match="cannot read s3://b/x"):
        next(scan_columns("s3://b/x", ("prompt",), columns(), open_file))


def test_scan_reads_the_asked_columns_only(tmp_path: Path) -> None:
    table = {"caption": ["x", "y"], "seed": [1, 2], "wide": ["w", "w"]}
    path = write_rows(tmp_path / "p.parquet", table)
    names = ("prompt", "seed", "width")
    found = list(scan_columns(str(path), names, columns(prompt="caption"), OPEN))
    assert [sorted(piece) for piece in found] == [["prompt", "seed"]]
    assert found[0]["prompt"].to_pylist() == ["x", "y"]


def test_rows_can_be_pickled(tmp_path: Path) -> None:
    rows = read(tmp_path / "p.parquet", {"prompt": ["x"], "id": ["k"], "other": [1]})
    again = pickle.loads(pickle.dumps(rows))
    assert again.known(0) == rows.known(0)
    assert again.label(0) == "k"
