"""Jobs on a real local Ray, with processes killed and signals sent from outside."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    write_prompts,
)

ROWS = 64
SIMULATED = (
    "engine=simulated",
    "engine.simulated_speed=6",
    "input.shard_rows=16",
    "job.commit_images=4",
    "job.commit_seconds=0.2",
    "cluster.heartbeat_s=0.2",
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return prompts_of(ROWS, tmp_path)


def prompts_of(count: int, folder: Path) -> Path:
    rows = [
        {"prompt": f"a picture of number {n}", "steps": 10 + n % 3, "guidance_scale": 1.0 + n % 2}
        for n in range(count)
    ]
    return write_prompts(folder / "prompts.parquet", rows)


def start(prompts: Path, output: Path, *more: str) -> JobProcess:
    return JobProcess("run", f"input.path={prompts}", f"output.path={output}", *SIMULATED, *more)


def assert_whole(output: Path, rows: int = ROWS) -> None:
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert len(images_by_id(output)) == rows


def wait_for_commits(job: JobProcess, output: Path, count: int = 2) -> None:
    job.wait_until(lambda: commit_count(output) >= count, f"{count} commits, {job.arguments}")


def test_a_killed_worker_is_replaced_and_every_image_is_made_once(tmp_path: Path) -> None:
    """More shards than one worker takes at a time, so that a third one has something to do."""
    output = tmp_path / "out"
    rows = 4 * ROWS
    job = start(prompts_of(rows, tmp_path), output, "cluster.workers=2", "input.shard_rows=8")
    wait_for_commits(job, output)
    job.workers()[0].kill()
    assert job.finish() == 0, job.output
    assert " died: " in job.output
    assert "(raylet)" not in job.output, "Ray's own paragraph"
    assert_whole(output, rows)
    workers = {path.name for path in (output / "workers").iterdir()}
    assert len(workers) == 3, f"two at the start and one replacement, not {workers}"


HASTY = ("cluster.lease_s=4", "cluster.heartbeat_s=0.2")


def assert_dead(process: psutil.Process) -> None:
    _, alive = psutil.wait_procs([process], timeout=60)
    assert not alive, "the worker that hung lives on"


def test_a_worker_that_hangs_is_replaced_and_the_job_finishes_by_itself(
    prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = start(prompts, output, *HASTY)
    wait_for_commits(job, output)
    (hung,) = job.workers()
    hung.suspend()
    assert job.finish() == 0, job.output
    assert_dead(hung)
    assert "worker r0001-w0000 was silent for 4 s: replaced" in job.output
    assert_whole(output)


def test_ctrl_c_once_ends_a_job_whose_worker_hangs(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = start(prompts, output, *HASTY)
    wait_for_commits(job, output)
    (hung,) = job.workers()
    hung.suspend()
    job.send(signal.SIGINT)
    assert job.finish() == 3, job.output
    assert_dead(hung)
    assert "replaced" not in job.output.partition("this run")[0]
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert imagemill("resume", str(output))[0] == 0
    assert_whole(output)


def test_a_killed_driver_leaves_a_job_that_resumes_with_another_number_of_workers(
    prompts: Path, tmp_path: Path
) -> None:
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "out"
    assert start(prompts, undisturbed).finish() == 0
    job = start(prompts, output)
    wait_for_commits(job, output)
    workers = job.workers()
    assert workers
    job.send(signal.SIGKILL)
    job.finish()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, f"these workers outlived their driver: {alive}"
    status, text = imagemill("status", str(output))
    assert status == 0
    assert "resume" in text
    status, text = imagemill("resume", str(output), "cluster.workers=2")
    assert status == 0, text
    assert_whole(output)
    assert images_by_id(output) == images_by_id(undisturbed)


def test_a_killed_coordinator_ends_the_run_in_words_and_the_job_resumes(
    prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = start(prompts, output, "cluster.workers=2")
    wait_for_commits(job, output)
    job.coordinator().kill()
    assert job.finish() == 3, job.output
    assert "coordinator died" in job.output
    assert f"imagemill resume {output}" in job.output
    assert "Traceback" not in job.output
    stamps = list((output / "workers").glob("*.json"))
    assert all(json.loads(stamp.read_text())["closed"] for stamp in stamps), "workers left in order"
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    status, text = imagemill("resume", str(output))
    assert status == 0, text
    assert_whole(output)


def test_ctrl_c_commits_what_is_finished_and_says_how_to_resume(
    prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = start(prompts, output)
    wait_for_commits(job, output)
    job.send(signal.SIGINT)
    assert job.finish() == 3, job.output
    assert f"imagemill resume {output}" in job.output
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert imagemill("resume", str(output))[0] == 0
    assert_whole(output)


def test_ctrl_c_twice_stops_at_once_and_the_job_is_resumable(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = start(prompts, output)
    wait_for_commits(job, output)
    job.send(signal.SIGINT)
    job.send(signal.SIGINT)
    assert job.finish() == 3, job.output
    assert f"imagemill resume {output}" in job.output
    assert imagemill("resume", str(output))[0] == 0
    assert_whole(output)


def test_a_cancelled_job_stops_with_status_3_and_resumes(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = start(prompts, output, "engine.simulated_speed=2")
    wait_for_commits(job, output)
    status, text = imagemill("cancel", str(output))
    assert status == 0, text
    assert job.finish() == 3, job.output
    assert "cancelled" in job.output
    assert imagemill("resume", str(output))[0] == 0
    assert_whole(output)
