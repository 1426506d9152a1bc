"""Checkpoints: what they hold after merges, and what becomes of damaged, old and contested ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_records import seal_of

from cluster import checkpoint, layout
from cluster.checkpoint import (
    SCHEMA,
    Checkpoint,
    add_checkpoint,
    newest_checkpoint,
    numbers,
    read_checkpoint,
)
from cluster.sealed_shard import SealedShard
from cluster.store import Store
from conf.errors import (
    CommitConflict,
    CorruptOutput,
    ImageMillError,
    StoreRefused,
    StoreUnavailable,
)
from tests.stores import ONCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), ONCE)


def rows(found: Checkpoint | None) -> list[dict[str, object]]:
    assert found is not None
    return [row for table in found.tables() for row in table.to_pylist()]


def plain(seal: SealedShard) -> dict[str, object]:
    """The seal as a checkpoint's row."""
    shares = [
        {"worker": s.worker, "used_ns": s.used_ns, "used_amount": s.used_amount}
        for s in seal.shares
    ]
    return {name: getattr(seal, name) for name in SCHEMA.names} | {"shares": shares}


def test_an_output_without_checkpoints_has_no_newest_one(store: Store) -> None:
    assert newest_checkpoint(store) is None


def test_a_checkpoint_holds_the_seals_by_shard_with_every_number(store: Store) -> None:
    seals = [seal_of(7, quarantined=3), seal_of(2, workers=("a", "b")), seal_of(4, workers=())]
    written = add_checkpoint(store, seals)
    expected = [plain(seals[1]), plain(seals[2]), plain(seals[0])]
    assert rows(written) == rows(newest_checkpoint(store)) == expected
    assert (written.number, written.shards) == (1, 3)


def test_the_next_checkpoint_holds_the_one_before_too(store: Store) -> None:
    add_checkpoint(store, [seal_of(i) for i in (1, 4, 9)])
    add_checkpoint(store, [seal_of(i) for i in (0, 5, 12)])
    found = newest_checkpoint(store)
    assert [row["shard_id"] for row in rows(found)] == [0, 1, 4, 5, 9, 12]


@pytest.mark.parametrize("older_first", [True, False])
def test_of_two_rows_of_a_shard_the_later_generation_and_epoch_stays(
    store: Store, older_first: bool
) -> None:
    old = [seal_of(1, epoch=9), seal_of(2), seal_of(3, epoch=5)]
    new = [seal_of(1, generation=1, epoch=4), seal_of(3, epoch=6)]
    first, second = (old, new) if older_first else (new, old)
    add_checkpoint(store, first)
    add_checkpoint(store, second)
    assert rows(newest_checkpoint(store)) == [plain(new[0]), plain(old[1]), plain(new[1])]


def test_each_worker_keeps_the_newest_of_its_stamps(store: Store) -> None:
    add_checkpoint(store, [seal_of(0, workers=("a", "b"), lifetime_ns=5)])
    add_checkpoint(store, [seal_of(1, workers=("a",), lifetime_ns=3)])
    written = add_checkpoint(store, [seal_of(2, workers=("b", "c"), lifetime_ns=8)])
    assert [(s.worker, s.lifetime_ns) for s in written.stamps] == [("a", 5), ("b", 8), ("c", 8)]
    assert read_checkpoint(store, 3).stamps == written.stamps


@settings(deadline=None, max_examples=30)
@given(
    intervals=st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=1, max_size=6),
    group_rows=st.integers(1, 9),
)
def test_any_merges_leave_full_groups_in_ascending_order(
    tmp_path_factory: pytest.TempPathFactory, intervals: list[set[int]], group_rows: int
) -> None:
    store = Store(str(tmp_path_factory.mktemp("merges")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "GROUP_ROWS", group_rows)
        for epoch, ids in enumerate(intervals, start=2):
            add_checkpoint(store, [seal_of(i, epoch=epoch) for i in ids])
    newest = {i: epoch for epoch, ids in enumerate(intervals, start=2) for i in ids}
    found = newest_checkpoint(store)
    assert rows(found) == [plain(seal_of(i, epoch=newest[i])) for i in sorted(newest)]
    assert found is not None
    sizes = [table.num_rows for table in found.tables()]
    assert all(size == group_rows for size in sizes[:-1])
    assert sizes[-1] <= group_rows


def test_only_the_two_newest_checkpoints_are_kept(store: Store) -> None:
    for shard_id in range(5):
        add_checkpoint(store, [seal_of(shard_id)])
    assert numbers(store) == [4, 5]
    assert newest_checkpoint(store).shards == 5  # type: ignore[union-attr]


def test_old_checkpoints_that_cannot_be_deleted_do_no_harm(store: Store) -> None:
    class Undeletable(Store):
        def delete(self, key: str) -> None:
            raise StoreRefused(f"cannot delete {key}")

    for shard_id in range(3):
        written = add_checkpoint(Undeletable(store.url), [seal_of(shard_id)])
    assert written.shards == 3
    assert numbers(store) == [1, 2, 3]


def test_other_files_beside_the_checkpoints_are_not_taken_for_one(store: Store) -> None:
    store.put("checkpoints/.DS_Store", b"")
    store.put("checkpoints/notes.parquet", b"")
    assert add_checkpoint(store, [seal_of(0)]).number == 1


def test_a_checkpoint_can_be_read_after_newer_ones_took_its_place(store: Store) -> None:
    add_checkpoint(store, [seal_of(0)])
    early = read_checkpoint(store, 1)
    for shard_id in range(1, 5):
        add_checkpoint(store, [seal_of(shard_id)])
    assert not store.exists(layout.checkpoint(1))
    assert rows(early) == [plain(seal_of(0))]


def _inside_a_page(path: Path) -> int:
    """The place of a byte that a page's checksum covers: not all of a Parquet file is covered."""
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    largest = max(columns, key=lambda column: column.total_compressed_size)
    start: int = largest.dictionary_page_offset or largest.data_page_offset
    return start + largest.total_compressed_size // 2


def damage(store: Store, number: int, how: str) -> None:
    path = Path(store.path(layout.checkpoint(number)))
    data = bytearray(path.read_bytes())
    if how == "bit":
        data[_inside_a_page(path)] ^= 1
    elif how == "torn":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    path.write_bytes(data)
    if how in ("order", "version", "columns"):
        table = pq.read_table(path)
        metadata = table.schema.metadata
        if how == "order":
            table = table.take(pa.array([1, 0]))
        elif how == "version":
            metadata = {**metadata, b"imagemill.schema": b"2"}
        else:
            table = table.drop_columns(["images"])
        pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("how", ["bit", "torn", "empty", "order", "version", "columns"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    add_checkpoint(store, [seal_of(i) for i in range(2)])
    add_checkpoint(store, [seal_of(i) for i in range(2, 500)])
    damage(store, 2, how)
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(store)
    assert found is not None
    assert found.number == 1
    (record,) = caplog.records
    assert "is damaged" in record.message
    assert "delete it, since it only repeats what the shards' own records say" in record.message


def test_the_checkpoint_after_a_damaged_one_holds_what_can_be_read_and_what_is_new(
    store: Store,
) -> None:
    add_checkpoint(store, [seal_of(0)])
    add_checkpoint(store, [seal_of(1)])
    damage(store, 2, "torn")
    written = add_checkpoint(store, [seal_of(2)])
    assert written.number == 3
    assert [row["shard_id"] for row in rows(written)] == [0, 2]


@pytest.mark.parametrize("hiccup", [StoreUnavailable, StoreRefused])
def test_a_newest_checkpoint_that_does_not_answer_is_never_replaced_by_one_without_its_shards(
    store: Store, hiccup: type[ImageMillError]
) -> None:
    class Hiccup(Store):
        def open(self, key: str) -> BinaryIO:
            if key == layout.checkpoint(2):
                raise hiccup(f"{key} does not answer")
            return super().open(key)

    add_checkpoint(store, [seal_of(0)])
    add_checkpoint(store, [seal_of(1)])
    with pytest.raises(hiccup, match=r"checkpoints/000002\.parquet does not answer"):
        add_checkpoint(Hiccup(store.url, ONCE), [seal_of(2)])
    assert numbers(store) == [1, 2]
    written = add_checkpoint(store, [seal_of(2)])
    assert [row["shard_id"] for row in rows(written)] == [0, 1, 2]


def test_a_base_that_others_replaced_while_it_was_read_is_looked_for_anew(store: Store) -> None:
    class Overtaken(Store):
        """Others write two checkpoints, and delete this one, before it is opened."""

        overtaken = False

        def open(self, key: str) -> BinaryIO:
            if not self.overtaken:
                self.overtaken = True
                add_checkpoint(Store(self.url), [seal_of(1)])
                add_checkpoint(Store(self.url), [seal_of(2)])
            return super().open(key)

    add_checkpoint(store, [seal_of(0)])
    written = add_checkpoint(Overtaken(store.url), [seal_of(3)])
    assert [row["shard_id"] for row in rows(written)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("version", "it has schema 2; expected 1"),
        ("columns", "its columns are not those of schema 1"),
        ("order", "its shards are not in order"),
    ],
)
def test_what_is_wrong_with_a_damaged_checkpoint_is_said(
    store: Store, how: str, problem: str
) -> None:
    add_checkpoint(store, [seal_of(0), seal_of(1)])
    damage(store, 1, how)
    with pytest.raises(
        CorruptOutput,
        match=rf"^checkpoints/000001\.parquet is damaged: {problem}; delete it, since",
    ):
        read_checkpoint(store, 1)


def test_a_checkpoint_that_vanished_is_named(store: Store) -> None:
    with pytest.raises(CorruptOutput, match=r"checkpoints/000007\.parquet is missing"):
        read_checkpoint(store, 7)


class Contested(Store):
    """Another driver takes the number just before each of the first ``losses`` writes."""

    losses = 1

    def put_if_absent(self, key: str, data: bytes) -> None:
        if self.losses:
            self.losses -= 1
            add_checkpoint(Store(self.url), [seal_of(100 + self.losses)])
        super().put_if_absent(key, data)


def test_the_loser_of_a_race_merges_anew_under_the_next_number(store: Store) -> None:
    add_checkpoint(store, [seal_of(0)])
    written = add_checkpoint(Contested(store.url), [seal_of(1)])
    assert written.number == 3
    assert [row["shard_id"] for row in rows(written)] == [0, 1, 100]


def test_a_writer_that_always_loses_gives_up_and_nothing_is_lost(store: Store) -> None:
    contested = Contested(store.url)
    contested.losses = 10
    with pytest.raises(CommitConflict, match="others took 3 numbers in a row"):
        add_checkpoint(contested, [seal_of(1)])
    assert [row["shard_id"] for row in rows(newest_checkpoint(store))] == [107, 108, 109]


def test_a_checkpoint_that_is_known_is_not_read_again(store: Store) -> None:
    first = add_checkpoint(store, [seal_of(0)])
    assert newest_checkpoint(store, first) is first
    add_checkpoint(store, [seal_of(1)])
    assert newest_checkpoint(store, first) is not first
