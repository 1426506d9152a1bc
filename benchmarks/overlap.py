"""A worker whose store takes 200 ms a put, in turns with the engine alone; in one process."""

from __future__ import annotations

from benchmarks.resident import Resident
from benchmarks.results import Overlap
from benchmarks.ways.task import Task
from benchmarks.workloads import read_rows


def measure(resident: Resident, turn: int, task: Task) -> Overlap:
    """The engine alone on the task's rows, then a worker that writes far away."""
    loop = resident.loop(read_rows(task.rows))
    worker = resident.worker(task, slow=True)
    return Overlap(
        turn=turn,
        images=worker.images,
        loop_per_second=loop.images_per_second,
        worker_per_second=worker.images_per_second,
        whole_per_second=worker.images / worker.whole_s,
    )
