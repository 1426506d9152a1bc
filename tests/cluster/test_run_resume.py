"""``imagemill run --resume``: a command that may be given again and again, as a RayJob gives it."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    write_prompts,
)

ROWS = 48
SIMULATED = (
    "engine=simulated",
    "engine.simulated_speed=2",
    "input.shard_rows=8",
    "job.commit_images=4",
    "job.commit_seconds=0.2",
    "pricing.currency=USD",
)


def test_the_same_command_starts_a_job_goes_on_with_it_and_finds_it_finished(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    prompts, output = write_prompts(tmp_path / "prompts.parquet", rows), tmp_path / "out"
    line = ("run", "--resume", f"input.path={prompts}", f"output.path={output}", *SIMULATED)
    lost = JobProcess(*line)
    lost.wait_until(lambda: commit_count(output) >= 2, "two commits")
    lost.send(signal.SIGKILL)
    lost.finish()

    assert imagemill("cancel", str(output))[0] == 0
    status, text = imagemill(*line)
    assert status == 3, text
    assert f"run 1 of {output} was cancelled, so that --resume does not go on" in text
    assert imagemill("cancel", str(output), "--undo")[0] == 0
    status, text = imagemill(*line, "cluster.workers=2")
    assert status == 0, text
    assert "the job is there; going on with it\n" in text
    assert len(images_by_id(output)) == ROWS
    assert imagemill("verify", str(output))[0] == 0

    status, text = imagemill(*line)
    assert status == 0, text
    assert "this job is finished; nothing was left to do\n" in text

    status, text = imagemill(*line, "job.seed=1")
    assert status == 2
    assert f"{output} holds another job ('out', started 20" in text
    assert "nothing was changed; choose another output.path" in text
