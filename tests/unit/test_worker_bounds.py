"""What a worker holds stays bounded, whatever waits; and nothing waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cluster.store import Store
from cluster.worker import WorkerOutcome
from tests.one_worker import Hooked, Stage
from tests.stores import ONCE, walk

PATIENCE_S = 20.0


class Watched(threading.Condition):
    """Knows by name which threads wait and have not been told of anything since."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[str] = set()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.add(threading.current_thread().name)
        return super().wait(timeout)

    def notify_all(self) -> None:
        self.waiting.clear()
        super().notify_all()


class Congested(Store):
    """Containers are written only once ``open`` is set; ``blocked`` is set by the first to wait."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ONCE)
        self.blocked, self.open = threading.Event(), threading.Event()

    def put_if_absent(self, key: str, data: bytes) -> None:
        if key.startswith("data/"):
            self.blocked.set()
            assert self.open.wait(PATIENCE_S)
        super().put_if_absent(key, data)


@pytest.mark.parametrize(
    ("shard_rows", "commit_images", "num_images"),
    [(16, 4, 1), (400, 4, 1), (40, 64, 1), (8, 1, 50)],
)
def test_memory_is_bounded_while_commits_are_stuck_and_the_job_ends_once_they_go_on(
    tmp_path: Path, shard_rows: int, commit_images: int, num_images: int
) -> None:
    """The engine has made what may wait, and stands still until the store answers again."""
    rows = [{"prompt": f"picture {n}", "num_images": num_images} for n in range(800 // num_images)]
    stage = Stage(
        tmp_path,
        rows,
        **{
            "output.format": "parquet",
            "input.shard_rows": shard_rows,
            "job.commit_images": commit_images,
            "job.commit_seconds": 1e6,
            "engine.max_batch": 4,
            "cluster.io_threads": 2,
        },
    )
    store = Congested(stage.small.config.output.path)
    worker = stage.worker(Hooked(stage.small), store=store)
    state, changed = worker._state, Watched()
    state.changed = changed
    outcomes: list[WorkerOutcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(worker.run()), name="engine", daemon=True
    )
    thread.start()
    assert store.blocked.wait(PATIENCE_S)
    with changed:
        assert changed.wait_for(
            lambda: state.crowded and not state._uploads and "engine" in changed.waiting, PATIENCE_S
        )
        held, made = len(state._held), state.made
    uploads, batch = 4 * 4 + 2 * 2, 4
    unfinished_rows = (batch + 1) * (num_images - 1)
    assert made <= 2 * commit_images + uploads + batch + unfinished_rows
    assert held <= 8
    store.open.set()
    thread.join(PATIENCE_S)
    assert [outcome.error for outcome in outcomes] == [None]
    assert stage.whole() == (len(rows), 0, 0)


def test_what_keeps_the_engine_waiting_is_committed_although_no_shard_is_due(
    tmp_path: Path,
) -> None:
    """Each shard lacks one slow row and an image to the number of a commit."""
    rows = [{"prompt": "x", "steps": 1 if n % 20 else 1000} for n in range(160)]
    stage = Stage(
        tmp_path,
        rows,
        **{
            "input.shard_rows": 20,
            "job.commit_images": 20,
            "job.commit_seconds": 1e6,
            "engine.max_batch": 8,
            "cluster.io_threads": 2,
        },
    )
    assert stage.run().error is None
    assert stage.whole() == (160, 0, 0)
    assert len(list(walk(stage.small.store, "commits/"))) > 8, "some shard was committed in parts"


def test_no_more_than_a_few_shards_are_held_while_none_can_be_sealed(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        [{"prompt": "x"}] * 320,
        **{"output.format": "parquet", "input.shard_rows": 16, "job.commit_images": 1000},
    )
    store = Congested(stage.small.config.output.path)
    worker = stage.worker(Hooked(stage.small), store=store)
    outcomes: list[WorkerOutcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(worker.run()), daemon=True)
    thread.start()
    assert store.blocked.wait(PATIENCE_S)
    with worker._state.changed:
        made_all = worker._state.changed.wait_for(
            lambda: len(stage.link.grants) == 8 and worker._state.made == 8 * 16, PATIENCE_S
        )
        assert made_all
    assert len(stage.link.grants) == 8
    store.open.set()
    thread.join(PATIENCE_S)
    assert [outcome.error for outcome in outcomes] == [None]
    assert stage.whole() == (320, 0, 0)


def test_shards_of_one_row_are_held_in_such_numbers_that_they_fill_a_batch(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        [{"prompt": "x"}] * 80,
        **{"output.format": "parquet", "input.shard_rows": 1, "job.commit_images": 1000},
    )
    store = Congested(stage.small.config.output.path)
    worker = stage.worker(Hooked(stage.small), store=store)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    assert store.blocked.wait(PATIENCE_S)
    with worker._state.changed:
        assert worker._state.changed.wait_for(lambda: worker._state.made == 64, PATIENCE_S)
    assert len(stage.link.grants) == 64
    store.open.set()
    thread.join(PATIENCE_S)
    assert stage.whole() == (80, 0, 0)
