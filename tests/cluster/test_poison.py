"""Rows that kill or hang the process that works on them, on a real local Ray."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tests.cluster.job_process import JobProcess, imagemill, images_by_id, write_prompts

POISON = {"PYTHONPATH": str(Path(__file__).parents[1] / "poison")}
PROMPTS = {5: "KILLS its worker", 10: "HANGS its worker"}
ROWS = 12


def test_rows_that_kill_or_hang_are_quarantined_alone_and_their_neighbours_are_made(
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    rows = [{"prompt": PROMPTS.get(n, f"picture {n}"), "id": f"row-{n}"} for n in range(ROWS)]
    job = JobProcess(
        "run",
        f"input.path={write_prompts(tmp_path / 'prompts.parquet', rows)}",
        f"output.path={output}",
        "engine=simulated",
        "engine.simulated_speed=0",
        "engine.max_batch=2",
        "input.shard_rows=4",
        "job.max_attempts=2",
        "job.row_timeout_s=2",
        "cluster.heartbeat_s=0.2",
        environment=POISON,
    )
    assert job.finish() == 1, job.output
    assert "2 quarantined" in job.output
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert len(images_by_id(output)) == ROWS - 2
    tables = [pq.read_table(path).to_pylist() for path in (output / "quarantine").glob("*.parquet")]
    found = {row["row_id"]: (row["id"], row["reason"]) for table in tables for row in table}
    assert found == {n: (f"row-{n}", "worker_died") for n in PROMPTS}
    status, text = imagemill("retry", str(output))
    assert status == 0, f"without the poison these rows are as good as any: {text}"
    assert "retry 1: 8 rows in 2 of 3 shards, " in text
    assert len(images_by_id(output)) == ROWS
