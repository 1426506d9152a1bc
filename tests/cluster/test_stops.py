"""How a job ends from outside or in trouble: what the user reads, and that it can go on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    write_prompts,
)

ROWS = 64
FAST = (
    "engine=simulated",
    "engine.simulated_speed=4",
    "input.shard_rows=16",
    "job.commit_images=4",
    "job.commit_seconds=0.2",
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    return write_prompts(tmp_path / "prompts.parquet", rows)


def test_sigterm_commits_what_is_finished_as_ctrl_c_does(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = JobProcess("run", f"input.path={prompts}", f"output.path={output}", *FAST)
    job.wait_until(lambda: commit_count(output) >= 2, "two commits")
    job.send(signal.SIGTERM)
    assert job.finish() == 3, job.output
    assert f"imagemill resume {output}" in job.output
    status, text = imagemill("cancel", str(output))
    assert status == 0
    assert "no run is under way, and none begins by itself now" in text
    assert imagemill("resume", str(output))[0] == 0
    assert len(images_by_id(output)) == ROWS


def test_a_cluster_that_does_not_fit_is_refused_before_the_output_is_claimed(
    prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    start = ("run", f"input.path={prompts}", f"output.path={output}", *FAST)
    status, text = imagemill(*start, "cluster.gpus_per_worker=64")
    assert status == 2
    assert "cluster.gpus_per_worker is 64" in text
    assert not (output / "job.json").exists()
    assert imagemill(*start)[0] == 0


def test_a_full_disk_stops_the_job_and_more_space_lets_it_go_on(
    prompts: Path, disk: Callable[[str], Path]
) -> None:
    small_disk = disk("size=400k")
    output = small_disk / "out"
    status, text = imagemill("run", f"input.path={prompts}", f"output.path={output}", *FAST)
    assert status == 3, text
    assert "No space left on device" in text
    assert f"imagemill resume {output}" in text
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    status, text = imagemill("resume", str(output))
    assert status == 0, text
    assert imagemill("verify", str(output))[0] == 0
    assert len(images_by_id(output)) == ROWS


def test_a_job_whose_plan_was_half_written_goes_on(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert imagemill("run", f"input.path={prompts}", f"output.path={output}", *FAST)[0] == 0
    for name in ("checkpoints", "commits", "leases", "manifests", "plan/inputs.parquet"):
        subprocess.run(["rm", "-r", str(output / name)], check=True)
    status, text = imagemill("resume", str(output))
    assert status == 0, text
    assert imagemill("verify", str(output))[0] == 0


def test_a_store_that_refuses_once_the_job_has_begun_ends_it_with_how_to_go_on(
    prompts: Path, tmp_path: Path
) -> None:
    """A folder lies where the ledger goes: nobody can write there."""
    output = tmp_path / "out"
    assert imagemill("run", f"input.path={prompts}", f"output.path={output}", *FAST)[0] == 0
    (output / "manifests" / "000000.json").unlink()
    ledger = output / "ledger" / "workers.parquet"
    ledger.unlink()
    ledger.mkdir()
    status, text = imagemill("resume", str(output))
    assert status == 3, text
    assert "workers.parquet: Is a directory" in text
    assert f"what is committed counts; go on with: imagemill resume {output}" in text
    ledger.rmdir()
    assert imagemill("resume", str(output))[0] == 0
    assert ledger.is_file()
