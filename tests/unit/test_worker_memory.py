"""What a worker holds does not grow with its job."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.one_worker import Hooked, Stage


def most_blocks(folder: Path, rows: int) -> int:
    """Most blocks of memory that Python held between two ticks, beside those before the job."""
    stage = Stage(
        folder,
        [{"prompt": f"picture {number}"} for number in range(rows)],
        **{"sampling.steps": 1, "input.shard_rows": 32, "output.format": "webdataset"},
    )
    before, most = sys.getallocatedblocks(), 0

    def look() -> None:
        nonlocal most
        most = max(most, sys.getallocatedblocks() - before)

    engine = Hooked(stage.small, before_tick=look)
    engine.admitted = _Forgetful()
    assert stage.run(engine).error is None
    assert sum(seal.committed for seal in stage.link.seals) == rows
    return most


class _Forgetful(list[str]):
    """The hooks remember every image; here they must not."""

    def __iadd__(self, other: object) -> _Forgetful:
        return self


def test_a_worker_holds_as_much_after_20_000_rows_as_after_200(tmp_path: Path) -> None:
    few = most_blocks(tmp_path / "few", 200)
    many = most_blocks(tmp_path / "many", 20_000)
    assert many - few < 20_000, f"{few} blocks with 200 rows, {many} with 20,000"
