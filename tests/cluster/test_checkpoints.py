"""Checkpoints of a real run: a killed one leaves them, and the next run need not look again."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from cluster.checkpoint import newest_checkpoint
from cluster.layout import commits, openings
from cluster.store import Store
from tests.cluster.job_process import (
    JobProcess,
    imagemill,
    images_by_id,
    write_prompts,
)

ROWS = 64
SHARDS = 16
FAST = (
    "engine=simulated",
    "engine.simulated_speed=1.5",
    "input.shard_rows=4",
    "job.commit_seconds=0.2",
    "cluster.checkpoint_s=0.05",
)


def checkpointed(output: Path) -> set[int]:
    """The shards in the newest checkpoint."""
    found = newest_checkpoint(Store(str(output)))
    tables = found.tables(["shard_id"]) if found else ()
    return {shard_id for table in tables for shard_id in table["shard_id"].to_pylist()}


def test_a_resumed_run_neither_opens_nor_reads_the_shards_in_the_checkpoint(tmp_path: Path) -> None:
    """Their records are put away meanwhile: a run that looked at them would find them unopened."""
    output, away = tmp_path / "out", tmp_path / "away"
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    prompts = write_prompts(tmp_path / "prompts.parquet", rows)
    job = JobProcess("run", f"input.path={prompts}", f"output.path={output}", *FAST)
    job.wait_until(lambda: bool(checkpointed(output)), "a checkpoint")
    job.send(signal.SIGKILL)
    job.finish()
    settled = checkpointed(output)
    assert len(settled) < SHARDS, "the job ended before the fault could be caused"
    folders = [folder(shard_id) for shard_id in settled for folder in (openings, commits)]
    for folder in folders:
        shutil.move(output / folder, away / folder)
    status, text = imagemill("resume", str(output))
    assert status == 0, text
    assert f"rows       {ROWS}: {ROWS} committed" in text
    assert not any((output / folder).exists() for folder in folders)
    assert checkpointed(output) == set(range(SHARDS)), "the run's end wrote down the rest"
    for folder in folders:
        shutil.move(away / folder, output / folder)
    # what each image cost in all was told without those that were away
    status, text = imagemill("report", str(output))
    assert status == 0, text
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert len(images_by_id(output)) == ROWS


def test_a_run_that_ends_before_its_first_checkpoint_writes_one(tmp_path: Path) -> None:
    output = tmp_path / "out"
    prompts = write_prompts(tmp_path / "prompts.parquet", [{"prompt": "x"}] * 8)
    start = ("run", f"input.path={prompts}", f"output.path={output}", *FAST)
    status, text = imagemill(*start, "cluster.checkpoint_s=1000")
    assert status == 0, text
    assert checkpointed(output) == {0, 1}
