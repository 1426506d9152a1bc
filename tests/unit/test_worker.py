"""One worker in this process: what it commits, quarantines, gives back and says at its end."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import feeder
from cluster.tables import read_parquet
from cluster.worker import WorkerOutcome
from operators.engine import ImageFailure, ImageResult
from tests.one_worker import ROWS, Hooked, Stage, quarantine


def test_a_worker_finishes_everything_and_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.run() == WorkerOutcome(worker="w1")
    assert stage.whole() == (6, 0, 0)
    assert sorted(seal.shard_id for seal in stage.link.seals) == [0, 1]
    assert stage.link.returns == []
    snapshot = stage.link.coordinator.snapshot()
    assert snapshot.finished
    assert snapshot.counts.rows == snapshot.made == 6


def test_failed_images_and_bad_rows_are_quarantined_with_their_reason(tmp_path: Path) -> None:
    rows = [{**row, "width": 16} for row in ROWS]
    rows += [{"prompt": "", "width": 16}, {"prompt": "x", "width": 17}]
    stage = Stage(tmp_path, rows)

    def nan(result: ImageResult | ImageFailure) -> ImageResult | ImageFailure:
        if result.request.row_id != 2:
            return result
        return ImageFailure(
            request=result.request,
            stage="decode",
            reason="nan_image",
            message="the image is not finite",
            device_ns=result.device_ns,
        )

    assert stage.run(Hooked(stage.small, change=nan)).error is None
    assert stage.whole() == (5, 3, 0)
    found = quarantine(stage.small.store)
    assert [(r["row_id"], r["stage"], r["reason"]) for r in found] == [
        (2, "decode", "nan_image"),
        (6, "read", "empty_prompt"),
        (7, "read", "bad_size"),
    ]


def test_pixels_that_cannot_be_encoded_cost_one_row(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    def grey(result: ImageResult | ImageFailure) -> ImageResult | ImageFailure:
        if isinstance(result, ImageFailure) or result.request.row_id != 4:
            return result
        return replace(result, pixels=result.pixels[:, :, 0])

    assert stage.run(Hooked(stage.small, change=grey)).error is None
    assert stage.whole() == (5, 1, 0)
    assert quarantine(stage.small.store)[0]["reason"] == "encode_failed"


def test_a_row_of_many_images_is_committed_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = [{"prompt": "three", "num_images": 3}, {"prompt": "four", "num_images": 4}]
    stage = Stage(tmp_path, rows, **{"engine.max_batch": 2, "job.commit_images": 1})

    def third_fails(result: ImageResult | ImageFailure) -> ImageResult | ImageFailure:
        if result.request.image_id != "000000000-2":
            return result
        return ImageFailure(
            request=result.request, stage="check", reason="black", message="black", device_ns=1
        )

    assert stage.run(Hooked(stage.small, change=third_fails)).error is None
    assert stage.whole() == (1, 1, 0)
    ids = [
        image_id
        for entry in stage.small.store.listing("metadata/")
        for image_id in read_parquet(stage.small.store.get(entry.key) or b"")[
            "image_id"
        ].to_pylist()
    ]
    assert ids == [f"000000001-{n}" for n in range(4)]


def test_a_batch_is_starved_while_shards_may_come_and_not_when_all_are_taken(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"picture {number}", "steps": 9} for number in range(3)]
    stage = Stage(tmp_path, rows, **{"engine.max_batch": 8, "input.shard_rows": 100})
    patience = threading.Event()

    def until_nothing_is_free() -> None:
        for _ in range(1000):
            # the answer is noted a moment after it was given: a second question follows it
            if stage.link.waits > 1 or patience.wait(0.02):
                return

    engine = Hooked(stage.small, before_tick=until_nothing_is_free)
    assert stage.run(engine).error is None
    stats = engine.stats
    assert (stats.ticks, stats.offered - stats.occupied) == (9, 45)
    # the first tick was begun before the worker had asked once more
    assert stats.starved in (0, 5)


def test_a_job_ends_by_events_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own seal makes it ask again: it never waits for a poll's time to pass."""
    monkeypatch.setattr(feeder, "_ASK_AGAIN_S", 1e6)
    stage = Stage(tmp_path, **{"job.commit_seconds": 1e6})
    assert stage.run().error is None
    assert stage.whole() == (6, 0, 0)
