"""Way 1: diffusers in a loop, one row after the other."""

from __future__ import annotations

from benchmarks.pipeline import Pipeline
from benchmarks.ways.task import read_task
from benchmarks.workloads import read_rows, write_rows


def main() -> None:
    task = read_task()
    rows = read_rows(task.rows)
    pipeline = Pipeline(task.model, precision=task.precision, folder=task.output / "images")
    made = [picture for row in rows for picture in pipeline.make([row])]
    write_rows(task.output / "metadata.parquet", made)


if __name__ == "__main__":
    main()
