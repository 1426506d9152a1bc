"""Every way of the benchmark makes the pictures of diffusers: what is compared is the same work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.contest import largest_difference, read_made, read_pictures
from benchmarks.one_worker import plan_job, work_on
from benchmarks.slow_store import SlowStore
from benchmarks.timeline import fill
from benchmarks.ways import diffusers_loop, diffusers_sorted, imagemill
from benchmarks.ways.ray_data import Painter
from benchmarks.ways.task import Task
from benchmarks.workloads import read_rows, rows_of, write_rows
from operators.engines import load_engine

MODEL = "package:models/shapes/weights"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Five mixed rows, two of them alike, of few steps."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [{**row, "steps": 2 + number % 2} for number, row in enumerate(rows_of("mixed", 4))]
    rows.append({**rows[0], "id": "twin", "seed": 99})
    return Task(
        rows=write_rows(folder / "rows.parquet", rows),
        output=folder,
        model=MODEL,
        batch=4,
        precision="float32",
    )


def program(way: object, task: Task, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.argv", ["way", *task.arguments()])
    way.main()
    return task.output


@pytest.fixture(scope="module")
def looped(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return program(diffusers_loop, replace(task, output=tmp_path_factory.mktemp("loop")), patch)


def test_the_careful_user_makes_the_loops_pictures_in_fewer_calls(
    task: Task, looped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = program(diffusers_sorted, replace(task, output=tmp_path), monkeypatch)
    assert largest_difference(read_pictures(looped), read_pictures(output)) <= 1
    assert sorted(one.group for one in read_made(looped)) == [1] * 5
    assert sorted(one.group for one in read_made(output)) == [1, 1, 1, 2, 2]
    assert fill(read_made(output), 4) > fill(read_made(looped), 4)
    assert all(one.denoiser_s > 0 for one in read_made(output))


def test_ray_datas_actor_makes_the_loops_pictures(task: Task, looped: Path, tmp_path: Path) -> None:
    paint = Painter(MODEL, "float32", str(tmp_path / "images"))
    made = paint(pa.Table.from_pylist([dict(row) for row in read_rows(task.rows)]))
    pq.write_table(made, tmp_path / "metadata.parquet")
    assert largest_difference(read_pictures(looped), read_pictures(tmp_path)) <= 1
    assert sorted(one.group for one in read_made(tmp_path)) == [1, 1, 1, 2, 2]


def test_a_worker_of_imagemill_makes_the_loops_pictures_through_a_slow_store_too(
    task: Task, looped: Path, tmp_path: Path
) -> None:
    task = replace(task, output=tmp_path / "out")
    job = plan_job(imagemill.settings(task))
    engine = load_engine(job.config.engine, job.config.model)
    work_on(job, lambda: engine, SlowStore.of(job.config))
    pq.write_table(pq.read_table(task.output / "metadata"), task.output / "metadata.parquet")
    assert largest_difference(read_pictures(looped), read_pictures(task.output)) <= 1
