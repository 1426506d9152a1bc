"""Way 2: diffusers batched by a careful user, who sorts all rows into groups that are alike."""

from __future__ import annotations

from benchmarks.pipeline import Pipeline
from benchmarks.ways.task import read_task
from benchmarks.workloads import equal_groups, read_rows, write_rows


def main() -> None:
    task = read_task()
    groups = equal_groups(read_rows(task.rows), task.batch)
    pipeline = Pipeline(task.model, precision=task.precision, folder=task.output / "images")
    made = [picture for group in groups for picture in pipeline.make(group)]
    write_rows(task.output / "metadata.parquet", made)


if __name__ == "__main__":
    main()
