"""A worker whose store takes 200 ms a put, in turns with the engine alone; in one process."""

from __future__ import annotations

from benchmarks.resident import Resident
from benchmarks.results import Overlap
from benchmarks.ways.task import Task
from benchmarks.workloads import read_rows, rows_of

DRAW = 2_000
"""The first of the draws that only this part makes."""


def measure(resident: Resident, turn: int, task: Task) -> Overlap:
    """The engine alone on as many rows as the task's, then a worker that writes the task's far
    away."""
    count = len(read_rows(task.rows))
    loop = resident.loop(rows_of("mixed", count, DRAW + 2 * turn + 1))
    worker = resident.worker(task, slow=True)
    return Overlap(
        turn=turn,
        images=worker.images,
        loop_per_second=loop.flowing_per_second,
        worker_per_second=worker.flowing_per_second,
        whole_per_second=worker.images / worker.whole_s,
    )
