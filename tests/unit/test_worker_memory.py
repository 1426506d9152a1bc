"""What a worker holds does not grow with its job."""

from __future__ import annotations

import gc
import itertools
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.one_worker import Hooked, Stage

LOOK_EVERY = 250
"""Ticks between two looks: each has to collect what Python itself would throw away much later."""


def most_blocks(folder: Path, rows: int) -> int:
    """Most blocks of memory that Python held at a look, beside those before the job."""
    stage = Stage(
        folder,
        [{"prompt": f"picture {number}"} for number in range(rows)],
        **{"sampling.steps": 1, "input.shard_rows": 32, "output.format": "webdataset"},
    )
    before, most, ticks = held(), 0, itertools.count()

    def look() -> None:
        nonlocal most
        if next(ticks) % LOOK_EVERY == 20:
            most = max(most, held() - before)

    engine = Hooked(stage.small, before_tick=look)
    engine.admitted = _Forgetful()
    stage.link = stage.link.coordinator
    assert stage.run(engine).error is None
    assert stage.link.snapshot().counts.rows == rows
    return most


def held() -> int:
    """Blocks that somebody refers to."""
    gc.collect()
    return sys.getallocatedblocks()


class _Forgetful(list[str]):
    """The hooks would remember every image."""

    def __iadd__(self, other: object) -> _Forgetful:
        return self


def test_a_worker_holds_as_much_after_20_000_rows_as_after_200(tmp_path: Path) -> None:
    # a process of its own: what other tests left behind goes at any moment
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        few = apart.submit(most_blocks, tmp_path / "few", 200).result()
        many = apart.submit(most_blocks, tmp_path / "many", 20_000).result()
    assert few > 0
    assert many - few < 5_000, f"{few} blocks with 200 rows, {many} with 20,000"
