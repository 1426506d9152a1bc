"""input.unique_ids=true: out of core, and never wrong because of a hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_tables import job_config, write_rows

from conf.errors import DuplicateIds
from jobs import unique_ids
from jobs.plan import make_plan
from jobs.unique_ids import check_unique_ids


def check(path: Path) -> None:
    config = job_config(path)
    planned = make_plan(config, None)
    check_unique_ids(config, planned.inputs, None)


def table(ids: list[Any]) -> dict[str, Any]:
    return {"prompt": ["x"] * len(ids), "id": ids}


def test_unique_ids_pass(tmp_path: Path) -> None:
    check(write_rows(tmp_path / "p.parquet", table([str(i) for i in range(5000)])))


def test_duplicate_names_the_id_and_both_places(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", table(["a", "b", "c"]))
    write_rows(tmp_path / "b.parquet", table(["d", "b"]))
    with pytest.raises(DuplicateIds) as error:
        check(tmp_path)
    message = str(error.value)
    assert "id 'b' is given twice" in message
    assert f"{tmp_path}/a.parquet row 1 and {tmp_path}/b.parquet row 1" in message


def test_nulls_are_no_duplicates(tmp_path: Path) -> None:
    check(write_rows(tmp_path / "p.parquet", table([None, "a", None])))


def test_no_id_column_passes(tmp_path: Path) -> None:
    check(write_rows(tmp_path / "p.parquet", {"prompt": ["x", "x"]}))


def test_numbers_and_text_are_compared_as_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", table([7]))
    write_rows(tmp_path / "b.parquet", table(["7"]))
    with pytest.raises(DuplicateIds, match="id '7'"):
        check(tmp_path)


def test_duplicate_in_a_csv_names_the_source(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,id\nx,1\nx,2\nx,1\n")
    with pytest.raises(DuplicateIds, match=r"p\.csv row 0 and .*p\.csv row 2"):
        check(path)


def test_equal_hashes_of_different_ids_are_no_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unique_ids, "_hash", len)
    check(write_rows(tmp_path / "p.parquet", table(["a", "b", "cc", "dd"])))
    with pytest.raises(DuplicateIds, match=r"id 'a'.*row 0 and .*row 2"):
        check(write_rows(tmp_path / "p.parquet", table(["a", "b", "a", "dd"])))


def test_unreadable_rows_are_passed_over(tmp_path: Path) -> None:
    ids = [f"{i:050d}" for i in range(40)]
    path = write_rows(tmp_path / "p.parquet", table(ids), row_group_size=10, use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset)
        file.write(b"\xff" * (chunk.total_compressed_size // 2))
    check(path)


@given(
    ids=st.lists(st.sampled_from([None, "a", "b", "c", "d", "e", "f", "g"]), max_size=8),
    cut=st.integers(0, 8),
    partitions=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_the_plain_way(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str | None], cut: int, partitions: int
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    write_rows(folder / "a.parquet", table([*ids[:cut], "only a"]))
    write_rows(folder / "b.parquet", table([*ids[cut:], "only b"]))
    given_ids = [*ids[:cut], "only a", *ids[cut:], "only b"]
    seconds = [i for i, x in enumerate(given_ids) if x is not None and x in given_ids[:i]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unique_ids, "_PARTITION_BYTES", max(1, 160 // partitions))
        if not seconds:
            check(folder)
            return
        with pytest.raises(DuplicateIds, match=f"id '{given_ids[seconds[0]]}' is given twice"):
            check(folder)
