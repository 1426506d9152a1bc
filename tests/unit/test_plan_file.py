"""The stored plan: what was written is read back, in bounded pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster import layout, plan_file
from cluster.plan_file import InputFile, PlanReader, write_plan
from cluster.records import Shard
from cluster.store import Store
from conf.errors import CommitConflict, CorruptOutput, OutputMissing
from jobs.plan import cut_shards


def an_input(index: int, rows: int, problem: str | None = None) -> InputFile:
    return InputFile(
        index=index,
        file=f"/in/{index}.parquet",
        source=f"/in/{index}.parquet",
        bytes=10 + index,
        fingerprint=f"{index:064d}",
        rows=rows,
        problem=problem,
    )


INPUTS = (an_input(0, 10), an_input(1, 0, "it is broken"), an_input(2, 7))


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "out"))
    return Store(f"memory://{tmp_path.name}")


def test_plan_is_read_back_as_it_was_written(store: Store) -> None:
    plan = write_plan(store, INPUTS, cut_shards(INPUTS, 4))
    assert (plan.inputs, plan.problems, plan.shards, plan.rows) == (3, 1, 5, 17)
    reader = PlanReader(store)
    assert (reader.shards, reader.rows) == (5, 17)
    assert tuple(reader.inputs()) == INPUTS
    assert list(reader.iter_shards()) == list(cut_shards(INPUTS, 4))
    assert reader.shard(4) == Shard(
        shard_id=4, file="/in/2.parquet", first_row=4, rows=3, first_row_id=14
    )


def test_the_rows_of_some_shards_are_counted_over_all_groups(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_file, "GROUP_ROWS", 2)
    write_plan(store, INPUTS, cut_shards(INPUTS, 4))
    reader = PlanReader(store)
    assert [shard.rows for shard in reader.iter_shards()] == [4, 4, 2, 4, 3]
    assert reader.rows_of([0, 2, 4]) == 9
    assert reader.rows_of([1]) == 4
    assert reader.rows_of(range(5)) == 17
    assert reader.rows_of([]) == 0


def test_writing_the_same_plan_again_is_no_error(store: Store) -> None:
    write_plan(store, INPUTS, cut_shards(INPUTS, 4))
    write_plan(store, INPUTS, cut_shards(INPUTS, 4))


def test_another_plan_does_not_replace_the_first(store: Store) -> None:
    write_plan(store, INPUTS, cut_shards(INPUTS, 4))
    with pytest.raises(CommitConflict):
        write_plan(store, INPUTS, cut_shards(INPUTS, 5))
    assert PlanReader(store).shards == 5


def test_empty_plan(store: Store) -> None:
    inputs = (an_input(0, 0),)
    write_plan(store, inputs, cut_shards(inputs, 4))
    reader = PlanReader(store)
    assert (reader.shards, reader.rows, list(reader.iter_shards())) == (0, 0, [])


def test_no_plan_at_all(store: Store) -> None:
    with pytest.raises(OutputMissing, match=r"plan/shards\.parquet is missing"):
        PlanReader(store)


def test_damaged_plan_is_named(store: Store) -> None:
    store.put_if_absent(layout.PLAN_SHARDS, b"PAR1 not really")
    with pytest.raises(CorruptOutput, match=r"plan/shards\.parquet is damaged"):
        PlanReader(store)


def test_unknown_shard(store: Store) -> None:
    write_plan(store, INPUTS, cut_shards(INPUTS, 4))
    with pytest.raises(IndexError, match="there is no shard 5; the plan has 5"):
        PlanReader(store).shard(5)


def test_a_shard_is_read_with_its_row_group_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_file, "GROUP_ROWS", 10)
    store = Store(str(tmp_path / "out"))
    inputs = (an_input(0, 95),)
    write_plan(store, inputs, cut_shards(inputs, 1))
    assert pq.ParquetFile(tmp_path / "out/plan/shards.parquet").metadata.num_row_groups == 10
    groups: list[int] = []
    original = pq.ParquetFile.read_row_group

    def watched(self: Any, number: int, **options: Any) -> Any:
        groups.append(number)
        return original(self, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    reader = PlanReader(store)
    assert [reader.shard(i).first_row for i in (41, 42, 94, 41)] == [41, 42, 94, 41]
    assert groups == [4, 9]
    for first in range(0, 90, 10):
        reader.shard(first)
    assert len(reader._groups) <= 4
    assert [s.shard_id for s in reader.iter_shards()] == list(range(95))
