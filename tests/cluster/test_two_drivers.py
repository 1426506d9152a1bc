"""Two drivers on one output: one is refused, or both end in words and every row is made once."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    wait_until,
    write_prompts,
)

ROWS = 64
SIMULATED = (
    "engine=simulated",
    "engine.simulated_speed=1",
    "input.shard_rows=16",
    "job.commit_images=4",
    "job.commit_seconds=0.2",
    "cluster.heartbeat_s=0.2",
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    return write_prompts(tmp_path / "prompts.parquet", rows)


def started(prompts: Path, output: Path, *more: str) -> JobProcess:
    """A job that has made some of its images."""
    job = JobProcess("run", f"input.path={prompts}", f"output.path={output}", *SIMULATED, *more)
    job.wait_until(lambda: commit_count(output) >= 2, "two commits")
    return job


def assert_whole(output: Path) -> None:
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert len(images_by_id(output)) == ROWS


def test_resume_is_refused_while_another_driver_is_at_work(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = started(prompts, output)
    status, text = imagemill("resume", str(output))
    assert job.running()
    assert status == 2, text
    assert f"run 1 is at work on {output} since 20" in text
    assert f"as process {job.pid}; nothing was started; wait for its end, or stop it with" in text
    assert f"'imagemill cancel {output}' and resume then" in text
    assert job.finish() == 0, job.output
    assert_whole(output)


def test_a_driver_that_was_frozen_leaves_the_output_to_the_one_that_took_over(
    prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    frozen = started(prompts, output, "engine.simulated_speed=0.5")
    (worker,) = frozen.workers()
    worker.suspend()
    frozen.send(signal.SIGSTOP)
    later = JobProcess("resume", str(output))
    later.wait_until(
        lambda: any((output / "workers").glob("r0002-*.json")), "the later run's worker"
    )
    worker.resume()
    frozen.send(signal.SIGCONT)
    assert frozen.finish() == 3, frozen.output
    assert "run 2 has taken over" in frozen.output
    assert later.finish() == 0, later.output
    assert "run 1 never said that it ended; watching for 6 s" in later.output
    assert_whole(output)


def test_workers_of_a_frozen_driver_leave_the_output_to_the_later_run(
    prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    frozen = started(prompts, output)
    frozen.send(signal.SIGSTOP)
    later = JobProcess("resume", str(output), "cluster.workers=2")
    assert later.finish() == 0, later.output
    (stamp,) = (output / "workers").glob("r0001-*.json")
    wait_until(lambda: json.loads(stamp.read_text())["closed"], "its worker has left by itself")
    assert_whole(output)
    frozen.send(signal.SIGCONT)
    assert frozen.finish() == 0, frozen.output
    assert_whole(output)
