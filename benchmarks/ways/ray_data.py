"""Way 3: Ray Data with the diffusers pipeline in a pool of actors, and its Parquet writer.

Within each batch the rows that are alike go through the pipeline together. One actor for each GPU;
without GPUs one that has all CPU threads.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from benchmarks.ways.task import read_task
from benchmarks.workloads import equal_groups
from cluster.cores import usable_cores


class Painter:
    """The pipeline in an actor."""

    def __init__(self, model: str, precision: str, folder: str) -> None:
        from benchmarks.pipeline import Pipeline

        self._pipeline = Pipeline(model, precision=precision, folder=Path(folder))

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        groups = equal_groups(rows, len(rows))
        return pa.Table.from_pylist(
            [made for group in groups for made in self._pipeline.make(group)]
        )


def main() -> None:
    task = read_task()
    ray.init(
        "local",
        num_cpus=max(2, usable_cores()),
        include_dashboard=False,
        object_store_memory=100 * 1024 * 1024,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    DataContext.get_current().enable_progress_bars = False
    gpus = int(ray.cluster_resources().get("GPU", 0))
    ray.data.read_parquet(str(task.rows)).map_batches(
        Painter,
        fn_constructor_args=(task.model, task.precision, str(task.output / "images")),
        batch_size=task.batch,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=max(1, gpus)),
        num_gpus=1 if gpus else 0,
    ).write_parquet(str(task.output / "metadata.parquet"))
    ray.shutdown()


if __name__ == "__main__":
    main()
