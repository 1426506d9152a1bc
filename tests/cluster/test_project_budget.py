"""Two jobs of one project at once: together they stay within its cap, and what a killed one had
reserved is there for the other."""

from __future__ import annotations

import signal
from fractions import Fraction
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest

from cluster.project_budget import ProjectBudget
from jobs.open_job import open_job
from jobs.project import records_of
from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    write_prompts,
)
from tests.project_job import COMMIT_S, SETTINGS

CAP = 40


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"picture {n}", "steps": 40} for n in range(240)]
    return write_prompts(tmp_path / "prompts.parquet", rows)


def begin(prompts: Path, output: Path, cap: int) -> JobProcess:
    words = (f"input.path={prompts}", f"output.path={output}", *SETTINGS)
    budget = (f"budget.store={output.parent / 'budgets'}", f"budget.project_max_cost={cap}")
    return JobProcess("run", *words, *budget)


def billed(output: Path) -> Fraction:
    lines = ds.dataset(output / "ledger").to_table(["amount_nano"])
    return Fraction(sum(lines["amount_nano"].to_pylist()), 10**9)


def recorded(output: Path) -> ProjectBudget:
    job, store = open_job(str(output))
    return records_of(job, store).read()


def test_two_jobs_of_a_project_at_once_stop_before_its_cap_and_give_back_the_rest(
    prompts: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / name for name in ("one", "two")]
    jobs = [begin(prompts, output, CAP) for output in outputs]
    for job, output in zip(jobs, outputs, strict=True):
        assert job.finish() == 3, job.output
        assert (
            "stopped    budget.project_max_cost=40 USD leaves this job no more than" in job.output
        )
        assert f"next       imagemill resume {output} budget.project_max_cost=…" in job.output
    together = sum(billed(output) for output in outputs)
    assert CAP / 2 < together <= CAP + COMMIT_S * len(jobs)
    found = recorded(outputs[0])
    assert found.open == ()
    assert Fraction(found.used.nano, 10**9) == together, "what was not used is given back"
    status, text = imagemill("status", str(outputs[0]))
    assert status == 0
    assert f" of {CAP} USD spent by 2 jobs; nothing reserved" in text
    status, text = imagemill("resume", str(outputs[1]), f"budget.project_max_cost={CAP // 2}")
    assert status == 3, text
    assert "too little is left of the budget of project 'shop' for 1 worker to begin and" in text
    assert "; nothing reserved; nothing was started; go on with more: imagemill resume " in text


def test_what_a_killed_job_had_reserved_is_found_by_the_next_job_of_its_project(
    prompts: Path, tmp_path: Path
) -> None:
    killed, output, cap = tmp_path / "killed", tmp_path / "next", 20
    job = begin(prompts, killed, cap)
    job.wait_until(lambda: commit_count(killed) >= 1, "a commit")
    workers = job.workers()
    job.send(signal.SIGKILL)
    job.finish()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    (held,) = recorded(killed).open
    assert held.reserved.nano > 0

    other = begin(prompts, output, cap)
    assert other.finish() == 3, other.output
    assert f"{killed} no longer holds a share of the project's budget: its run 1 is over" in (
        other.output
    )
    found = recorded(killed)
    assert found.open == ()
    assert cap / 2 < Fraction(found.used.nano, 10**9) <= cap + 2 * COMMIT_S
