"""A budget on a real local Ray: a run stops in time though workers die, and goes on when asked."""

from __future__ import annotations

import json
import shlex
import sys
from fractions import Fraction
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    write_prompts,
)

ROWS = 240
CAP = 40
COMMIT_S = 3
SETTINGS = (
    "engine=simulated",
    "engine.simulated_speed=6",
    "input.shard_rows=16",
    "job.commit_images=4",
    f"job.commit_seconds={COMMIT_S}",
    "cluster.heartbeat_s=0.2",
    "cluster.workers=2",
    "pricing.price_per_hour=3600",  # one USD a second
)


def billed(output: Path) -> Fraction:
    lines = ds.dataset(output / "ledger").to_table(["amount_nano"])
    return Fraction(sum(lines["amount_nano"].to_pylist()), 10**9)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"picture {n}", "steps": 40} for n in range(ROWS)]
    return write_prompts(tmp_path / "prompts.parquet", rows)


def test_a_run_stops_before_its_cap_although_a_worker_is_killed_and_goes_on_with_a_higher_one(
    prompts: Path, tmp_path: Path
) -> None:
    output, told = tmp_path / "out", tmp_path / "told"
    script = tmp_path / "tell.py"
    script.write_text(f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')")
    alert = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}"
    given = (f"input.path={prompts}", f"output.path={output}", f"budget.max_cost={CAP}")
    job = JobProcess("run", *given, f"budget.alert={alert}", *SETTINGS)
    job.wait_until(lambda: commit_count(output) >= 2, "two commits")
    job.workers()[0].kill()
    assert job.finish() == 3, job.output
    assert "stopped    budget.max_cost=40 USD is all but used: " in job.output
    assert "left       " in job.output
    assert f"next       imagemill resume {output} budget.max_cost=…" in job.output
    first = billed(output)
    workers = len(list((output / "workers").glob("*.json")))
    assert workers >= 2
    assert 0 < first <= CAP + COMMIT_S * workers
    levels = [json.loads(line)["level"] for line in told.read_text().splitlines()]
    assert levels == [50, 80, 100]

    for _ in range(9):  # what the killed worker was reserved and did not cost is there to be used
        before = billed(output)
        status, text = imagemill("resume", str(output))
        assert status == 3, text
        if "nothing was started" in text:
            break
    assert f"go on with: imagemill resume {output} budget.max_cost=…" in text
    workers = len(list((output / "workers").glob("*.json")))
    assert first <= billed(output) == before <= CAP + COMMIT_S * workers

    more = ("budget.max_cost=100000", "engine.simulated_speed=0")
    assert imagemill("resume", str(output), *more)[0] == 2, "the engine cannot be changed"
    status, text = imagemill("resume", str(output), "budget.max_cost=100000")
    assert status == 0, text
    assert len(images_by_id(output)) == ROWS
    assert imagemill("verify", str(output))[0] == 0
