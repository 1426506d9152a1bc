"""Budgets of projects on a real S3 store: jobs at once, a store that will not do, one that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import pytest

from cluster.budget import Spent
from cluster.coordinator import Snapshot
from cluster.nodes import Shape
from cluster.project_budget import ProjectBudget
from cluster.ray_session import Resources
from cluster.store import Store
from conf.price_book import book_of
from jobs.cli import main
from jobs.cost import cost
from jobs.open_job import open_job
from jobs.project import records_of
from jobs.project_purse import Purse, project_purse
from tests.cluster.job_process import JobProcess, write_prompts
from tests.project_job import COMMIT_S, SETTINGS
from tests.seaweedfs import FULL, READ_ONLY, Identity, SeaweedFS
from tests.small_jobs import SmallJob, prepare_small_job
from tests.snapshots import snapshot_of
from tests.stores import ONCE, walk

CAP = 24
USD = 10**9


def begin(prompts: Path, output: str, budgets: str) -> JobProcess:
    words = (f"input.path={prompts}", f"output.path={output}", *SETTINGS)
    return JobProcess("run", *words, f"budget.store={budgets}", f"budget.project_max_cost={CAP}")


def billed(output: str) -> Fraction:
    (amount,) = cost([output]).totals["cost"].to_pylist()
    return Fraction(amount)


def recorded(output: str) -> ProjectBudget:
    job, store = open_job(output)
    return records_of(job, store).read()


def test_two_jobs_at_once_keep_to_the_cap_on_one_store_and_the_stopped_one_goes_on_with_more(
    s3_url: str, tmp_path: Path
) -> None:
    rows = [{"prompt": f"picture {n}", "steps": 40} for n in range(48)]
    prompts = write_prompts(tmp_path / "prompts.parquet", rows)
    outputs = [f"{s3_url}/{name}" for name in ("one", "two")]
    jobs = [begin(prompts, output, f"{s3_url}/budgets") for output in outputs]
    for job, output in zip(jobs, outputs, strict=True):
        assert job.finish() == 3, job.output
        assert f"stopped    budget.project_max_cost={CAP} USD leaves this job no more than" in (
            job.output
        )
        assert f"next       imagemill resume {output} budget.project_max_cost=…" in job.output
    together = sum(billed(output) for output in outputs)
    assert CAP / 2 < together <= CAP + COMMIT_S * len(jobs)
    found = recorded(outputs[0])
    assert found.open == ()
    assert Fraction(found.used.nano, USD) == together, "what was not used is given back"

    resumed = JobProcess("resume", outputs[1], "budget.project_max_cost=100")
    assert resumed.finish() == 0, resumed.output
    assert f"project 'shop': {float(together):.9f}"[:20] in resumed.output
    assert Fraction(recorded(outputs[1]).used.nano, USD) == sum(map(billed, outputs))


def words(tmp_path: Path, *more: str) -> list[str]:
    """The keys of a job with a budget for its project."""
    prompts = write_prompts(tmp_path / "prompts.parquet", [{"prompt": "a"}])
    paths = (f"input.path={prompts}", f"output.path={tmp_path / 'out'}")
    return [*paths, "budget.project_max_cost=40", *SETTINGS, *more]


def planned(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *more: str
) -> tuple[int, list[str]]:
    """The exit status of a dry run, and what it says of budgets and of why a run would fail."""
    capsys.readouterr()
    status = main(["plan", *words(tmp_path, *more)])
    lines = capsys.readouterr().out.splitlines()
    return status, [line for line in lines if line.startswith(("project ", "refused "))]


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *more: str) -> str:
    """What a run says that is not begun, and leaves nothing."""
    capsys.readouterr()
    assert main(["run", *words(tmp_path, *more)]) == 2
    printed = capsys.readouterr().err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "starting Ray" not in printed
    (told,) = [line for line in printed.splitlines() if line.startswith("imagemill: ")]
    assert told.startswith("imagemill: budget.store cannot hold the budget of project 'shop': ")
    assert told.endswith("; nothing was started")
    return told


def would(told: str) -> list[str]:
    """A run's refusal as a dry run tells it."""
    return [told.replace("imagemill: ", "refused   a run would be refused: ")]


def act_as(identity: Identity, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)


def test_a_key_that_may_not_write_budgets_is_refused_before_anything_starts(
    s3_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    act_as(READ_ONLY, monkeypatch)
    told = refused(capsys, tmp_path, f"budget.store={s3_url}/budgets")
    assert "these credentials may not write there; allow them" in told
    assert "use others, or choose another budget.store (AccessDenied)" in told
    assert "output.path" not in told
    status, lines = planned(capsys, tmp_path, f"budget.store={s3_url}/budgets")
    assert status == 0, "a dry run writes nothing, so it cannot know"
    assert lines == [
        "project   shop: 0 of 40 USD spent; nothing reserved; 40 USD left",
        f"project   {s3_url}/budgets was read; whether it can be written, a run tries before it "
        "starts",
    ]
    act_as(FULL, monkeypatch)
    assert list(walk(Store(s3_url, ONCE), "")) == []


@pytest.mark.usefixtures("s3_url")
def test_a_bucket_for_budgets_that_is_not_there_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, tmp_path, "budget.store=s3://no-such-bucket/budgets")
    assert "s3://no-such-bucket/budgets/shop-" in told
    assert "the bucket does not exist; create it, or correct the path" in told
    assert planned(capsys, tmp_path, "budget.store=s3://no-such-bucket/budgets") == (2, would(told))


def test_a_store_for_budgets_that_does_not_answer_is_told_before_anything_starts(
    s3_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = (f"budget.store={s3_url}/budgets", "storage.patience_s=0.5")
    told = refused(capsys, tmp_path, *place)
    assert "the store cannot be reached" in told
    assert "check the network, storage.endpoint_url and AWS_ENDPOINT_URL" in told
    assert planned(capsys, tmp_path, *place) == (2, would(told))


def snapshot(spent: int) -> Snapshot:
    return snapshot_of(spent=Spent(nano=spent * USD), reserved=Spent(nano=10 * USD))


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s, never = time.monotonic() + 30, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s
        never.wait(0.02)


def sees(purse: Purse, spent: int, *, cut_off: bool) -> None:
    """The run goes on at this cost until the purse knows how it stands with the store."""

    def known() -> bool:
        purse.see(snapshot(spent))
        return purse.allowance.cut_off is cut_off

    eventually(known)


def test_a_store_of_budgets_that_dies_lets_no_run_pass_what_it_has_and_is_asked_until_it_is_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with SeaweedFS(tmp_path / "server") as server:
        for name, value in server.environment(FULL).items():
            monkeypatch.setenv(name, value)
        small = prepare_small_job(
            tmp_path,
            [{"prompt": "a"}],
            **{
                "pricing.price_per_hour": "3600",
                "job.project": "shop",
                "job.commit_seconds": 8,
                "cluster.heartbeat_s": 1,
                "budget.project_max_cost": "100",
                "budget.store": "s3://images/budgets",
            },
        )
        with purse_of(small) as purse:
            assert purse is not None
            assert purse.allowance.limit.nano == 20 * USD
            server.kill()
            sees(purse, 11, cut_off=True)
            assert purse.allowance.limit.nano == 20 * USD, "no more than was reserved"
            assert purse.allowance.exceeded(Spent(nano=9 * USD), Spent(nano=10 * USD)) == ""
            assert purse.allowance.exceeded(Spent(nano=10 * USD), Spent(nano=10 * USD)) == (
                "the store of the project's budget failed, so that nothing more could be reserved: "
                "of budget.project_max_cost=100 USD this job had no more than 20 USD: 10 USD are "
                "spent, 10 USD are kept for workers to leave in order"
            )
            server.start()
            sees(purse, 11, cut_off=False)
            eventually(lambda: purse.allowance.limit.nano > 20 * USD)
            server.kill()
            sees(purse, 50, cut_off=True)
        told = [text for text in caplog.messages if text.startswith("nothing more can be reserved")]
        assert len(told) == 2, "once for each time"
        assert told[0].startswith(
            "nothing more can be reserved of the budget of project 'shop': cannot "
        )
        assert told[0].endswith(
            "; it is tried again, and the run stops where what it has reserved ends: at 20 USD in "
            "all"
        )
        assert "is not given back yet: cannot read s3://images/budgets/shop-" in caplog.text
        server.start()
        assert main(["status", small.config.output.path]) == 0


def purse_of(small: SmallJob) -> AbstractContextManager[Purse | None]:
    size = Resources(shape=Shape(gpus=0.0), least=1, most=1, per_node=None, workers=1, threads=1)
    book = book_of(small.job.config.pricing)
    return project_purse(small.job, small.store, book, size, shards=1, after=0)
