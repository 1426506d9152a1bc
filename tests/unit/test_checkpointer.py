"""The checkpointer: when it writes, and that nothing which fails there hurts anybody."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from shard_records import seal_of

from cluster import checkpointer
from cluster.checkpoint import add_checkpoint, newest_checkpoint, numbers
from cluster.checkpointer import Checkpointer
from cluster.store import Store
from conf.errors import StoreUnavailable
from tests.stores import ONCE

NEVER_S = 1e6
PATIENCE_S = 20.0


class Watched(Store):
    """A local store that can be down, and says when something was written or not."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ONCE)
        self.down = False
        self.put = threading.Event()

    def put_if_absent(self, key: str, data: bytes) -> None:
        try:
            if self.down:
                raise StoreUnavailable(f"{key}: no answer")
            super().put_if_absent(key, data)
        finally:
            self.put.set()


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(str(tmp_path))


def shard_ids(store: Store) -> list[int]:
    found = newest_checkpoint(store)
    return [] if found is None else [i for t in found.tables() for i in t["shard_id"].to_pylist()]


def test_seals_are_written_after_the_interval_without_being_asked(store: Watched) -> None:
    running = Checkpointer(store, every_s=0.01)
    for shard_id in (4, 2):
        running.add(seal_of(shard_id))
        assert store.put.wait(PATIENCE_S)
        store.put.clear()
    running.close()
    assert shard_ids(store) == [2, 4]


def test_seals_within_an_interval_wait_for_its_end_and_closing_writes_them(store: Watched) -> None:
    running = Checkpointer(store, every_s=NEVER_S)
    for shard_id in (4, 2, 3):
        running.add(seal_of(shard_id))
    assert numbers(store) == []
    running.close()
    running.close()
    assert numbers(store) == [1]
    assert shard_ids(store) == [2, 3, 4]


def test_nothing_is_written_when_nothing_was_sealed(store: Watched) -> None:
    Checkpointer(store, every_s=NEVER_S).close()
    assert not store.put.is_set()


def test_a_store_that_is_down_costs_a_warning_and_the_seals_are_written_later(
    store: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    store.down = True
    with caplog.at_level(logging.WARNING):
        running = Checkpointer(store, every_s=0.01)
        running.add(seal_of(1))
        assert store.put.wait(PATIENCE_S)
    store.down = False
    running.add(seal_of(2))
    running.close()
    assert "no checkpoint was written: checkpoints/000001.parquet: no answer" in caplog.text
    assert shard_ids(store) == [1, 2]


def test_so_many_seals_that_they_would_fill_the_memory_are_written_at_once(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "MOST_SEALS", 3)
    running = Checkpointer(store, every_s=NEVER_S)
    for shard_id in range(3):
        running.add(seal_of(shard_id))
    assert store.put.wait(PATIENCE_S)
    running.close()
    assert shard_ids(store) == [0, 1, 2]


def test_seals_beyond_the_most_are_left_to_their_records_while_the_store_is_down(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "MOST_SEALS", 3)
    store.down = True
    running = Checkpointer(store, every_s=NEVER_S)
    for shard_id in range(5):
        running.add(seal_of(shard_id))
    assert store.put.wait(PATIENCE_S)
    store.down = False
    running.close()
    assert shard_ids(store) == [0, 1, 2]


def test_adding_does_not_wait_for_a_store_that_hangs(store: Watched) -> None:
    answers = threading.Event()

    class Hanging(Watched):
        def put_if_absent(self, key: str, data: bytes) -> None:
            self.put.set()
            assert answers.wait(PATIENCE_S)
            super().put_if_absent(key, data)

    hanging = Hanging(store.url)
    running = Checkpointer(hanging, every_s=0.01)
    running.add(seal_of(1))
    assert hanging.put.wait(PATIENCE_S)
    running.add(seal_of(2))  # would not return before the answer
    answers.set()
    running.close()
    assert shard_ids(store) == [1, 2]


def test_two_runs_at_once_leave_the_seals_of_both(store: Watched) -> None:
    both = [Checkpointer(Store(store.url), every_s=NEVER_S) for _ in range(2)]
    for number, running in enumerate(both):
        running.add(seal_of(number))
    threads = [threading.Thread(target=running.close) for running in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shard_ids(store) == [0, 1]


def test_a_checkpoint_of_another_run_is_merged_and_not_forgotten(store: Watched) -> None:
    running = Checkpointer(store, every_s=0.01)
    running.add(seal_of(1))
    assert store.put.wait(PATIENCE_S)
    add_checkpoint(Store(store.url), [seal_of(2)])
    running.add(seal_of(3))
    running.close()
    assert shard_ids(store) == [1, 2, 3]
