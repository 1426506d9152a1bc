"""Static groups against sampler tables by published step times: a simulation, in virtual time.

The steps are those of ``operators.batcher``, which the engine uses; only the seconds of a step come
from a table. A batch is counted in rows of the forward pass; text encoding and decoding take no
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.results import Simulated
from benchmarks.workloads import Row, equal_groups, passes, rows_of
from operators.batcher import Batcher
from operators.engines.simulated import step_seconds

PUBLISHED: Mapping[int, float] = {1: 0.167, 4: 0.240, 8: 0.425, 16: 0.832}
"""Seconds of a step by batch size: Qwen-Image, 512 x 512 pixels, on an H200."""
IN_BATCHES = "equal groups inside each batch"
BASE_PIXELS = 64 * 64
"""The workload's smaller size stands for 512 x 512, the larger one for 768 x 512."""


def simulate(count: int, batch: int) -> list[Simulated]:
    """The ways on ``count`` mixed rows with ``batch`` slots."""
    rows = rows_of("mixed", count)
    chunks = [rows[start : start + batch] for start in range(0, count, batch)]
    inside = [group for chunk in chunks for group in equal_groups(chunk, batch)]
    return [
        _static("one by one", [[row] for row in rows], batch),
        _static(IN_BATCHES, inside, batch),
        _static("all rows sorted into equal groups", equal_groups(rows, batch), batch),
        tables(rows, batch),
    ]


def _static(way: str, groups: Iterable[Sequence[Row]], batch: int) -> Simulated:
    """Every group from its first step to its last."""
    spent_s = occupied_s = 0.0
    images = 0
    for group in groups:
        took_s = group[0]["steps"] * _seconds(group)
        spent_s += took_s
        occupied_s += took_s * len(group)
        images += len(group)
    return Simulated(
        way=way,
        rows=images,
        batch=batch,
        images_per_second=images / spent_s,
        fill=occupied_s / (spent_s * batch),
    )


def tables(rows: Sequence[Row], batch: int) -> Simulated:
    """ImageMill's batcher: rows enter as slots get free."""
    batcher = Batcher(max_batch=batch)
    waiting = list(enumerate(rows))
    left = [int(row["steps"]) for row in rows]
    spent_s = occupied_s = 0.0
    while waiting or batcher.inside:
        room = batcher.room
        for number, row in waiting[:room]:
            batcher.add(number, shape=(row["height"], row["width"]), steps=left[number])
        del waiting[:room]
        plan = batcher.next_tick()
        assert plan is not None
        took_s = _seconds([rows[number] for number in plan.rows])
        spent_s += took_s
        occupied_s += took_s * len(plan.rows)
        for number in plan.rows:
            left[number] -= 1
        batcher.remove([number for number in plan.rows if not left[number]])
    return Simulated(
        way="sampler tables (ImageMill)",
        rows=len(rows),
        batch=batch,
        images_per_second=len(rows) / spent_s,
        fill=occupied_s / (spent_s * batch),
    )


def _seconds(rows: Sequence[Row]) -> float:
    """One step of rows of one shape."""
    pixels = rows[0]["width"] * rows[0]["height"]
    return step_seconds(PUBLISHED, sum(map(passes, rows))) * pixels / BASE_PIXELS
