"""A worker whose process is told to end in mid-job leaves in order within its notice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    counted_metadata,
    imagemill,
    images_by_id,
    write_prompts,
)

ROWS = 64
NOTICE_S = 60
JOB = (
    "engine=simulated",
    "engine.simulated_speed=2",
    "input.shard_rows=16",
    "job.commit_images=1000",
    "job.commit_seconds=1000",
    "job.max_attempts=1",
    "cluster.heartbeat_s=0.2",
    f"cluster.preemption_notice_s={NOTICE_S}",
)
"""Nothing is committed before a shard is done, and a shard that is held to have killed its worker
once has its rows quarantined: exit status 1."""


def records(output: Path, folder: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (output / folder).rglob("*.json")]


def uploaded(output: Path, epochs: set[tuple[int, int]]) -> set[str]:
    """The images that these epochs made, committed or not."""
    keys = {str(path.relative_to(output)) for path in (output / "images").rglob("*.png")}
    return {key for key in keys if tuple(map(int, key.split("/")[1].split("-"))) in epochs}


def named(output: Path, commits: list[dict[str, Any]]) -> set[str]:
    """The images that the commits name."""
    tables = [commit["metadata"]["key"] for commit in commits if commit["metadata"]]
    return {key for t in tables for key in pq.read_table(output / t)["object"].to_pylist()}


def test_sigterm_to_a_worker_commits_what_it_finished_and_another_goes_on(tmp_path: Path) -> None:
    rows = [{"prompt": f"a picture of number {n}", "steps": 4 + n % 9} for n in range(ROWS)]
    prompts, output = write_prompts(tmp_path / "prompts.parquet", rows), tmp_path / "out"
    job = JobProcess("run", f"input.path={prompts}", f"output.path={output}", *JOB)
    job.wait_until(lambda: len(list(output.rglob("images/*/*.png"))) >= 4, "some images")
    assert commit_count(output) == 0
    (told,) = job.workers()
    told.terminate()
    told_at_s = time.monotonic()
    job.wait_until(lambda: told not in job.workers(), "the worker leaves")
    assert time.monotonic() - told_at_s < NOTICE_S
    (gone,) = {stamp["worker"] for stamp in records(output, "workers") if stamp["closed"]}
    commits = [c for c in records(output, "commits") if c["stamp"]["worker"] == gone]
    openings = [o for o in records(output, "leases") if not o["sealed"]]
    epochs = {(o["shard_id"], o["epoch"]) for o in openings if o["worker"] == gone}
    made = uploaded(output, epochs)
    assert made
    assert made == named(output, commits), "what was finished is committed, and nothing else"
    unfinished = {c["shard_id"] for c in commits if c["images"] < 16}
    assert unfinished

    assert job.finish() == 0, job.output
    assert f"worker {gone} left: its process was told to end (SIGTERM): replaced" in job.output
    assert {c["metadata"]["key"] for c in commits} <= set(counted_metadata(output))
    attempts = {o["shard_id"]: o["attempt"] for o in records(output, "leases") if o["sealed"]}
    assert all(attempts[shard_id] == 2 for shard_id in unfinished)
    assert imagemill("verify", str(output))[0] == 0
    assert len(images_by_id(output)) == ROWS
