"""A job beside others of its project: what it reserves, what it gives back, what it is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.budget import NOTHING, Caps, Spent
from cluster.coordinator import Snapshot
from cluster.job_log import write_run_end
from cluster.nodes import Shape
from cluster.project_budget import JobShare, ProjectBudget
from cluster.ray_session import Resources
from conf.errors import BudgetSpent, ConfigError
from conf.price_book import book_of
from jobs import project_purse as module
from jobs.open_job import open_job
from jobs.project import Project, in_words, job_key, project_line, records_of
from jobs.project_purse import project_purse
from jobs.run import prepare
from jobs.spending import settled, spent_by
from jobs.status import status, status_lines
from tests.small_jobs import SmallJob, begin_run, prepare_small_job, run_small_job
from tests.snapshots import snapshot_of

ROWS = [{"prompt": f"picture {number}"} for number in range(8)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
DEAR = {"pricing.price_per_hour": "3600"}
USD = 10**9
HOUR = 3600 * 10**9
ONE = Resources(shape=Shape(gpus=0.0), least=1, most=1, per_node=None, workers=1, threads=1)


def changes(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        **TINY,
        **DEAR,
        "job.project": "shop",
        "job.commit_seconds": 8,
        "cluster.heartbeat_s": 1,
        "budget.project_max_cost": "100",
        "budget.store": str(tmp_path / "budgets"),
        **more,
    }


def half_done(tmp_path: Path, name: str, **more: Any) -> SmallJob:
    """A job of the project whose first run reserved 30 USD and ended after half of its rows."""
    settings = {"output.path": str(tmp_path / name), **changes(tmp_path, **more)}
    small = run_small_job(tmp_path, ROWS, shards=[0], **settings)
    mine(small, run=1, spent=NOTHING).reserve(Spent(nano=30 * USD))
    return small


def mine(small: SmallJob, *, run: int, spent: Spent) -> Project:
    found = Project.of(small.job, small.store, run=run, spent=spent)
    assert found is not None
    return found


def recorded(small: SmallJob) -> ProjectBudget:
    return records_of(small.job, small.store).read()


def share_of(small: SmallJob) -> JobShare:
    return recorded(small).shares[job_key(small.job)]


def purse_of(small: SmallJob, *, after: int = 1, size: Resources = ONE) -> Any:
    book = book_of(small.job.config.pricing)
    return project_purse(small.job, small.store, book, size, shards=2, after=after)


def line(small: SmallJob) -> str:
    shown = status_lines(status(small.store, watch_s=0.02))
    (text,) = [text for text in shown if text.startswith("project")]
    return text


def test_without_a_cap_for_its_project_a_job_asks_nobody(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, ROWS)
    with purse_of(small, after=0) as purse:
        assert purse is None
    assert project_line(small.job, small.store, over=True) == ""
    assert not [text for text in status_lines(status(small.store)) if text.startswith("project")]


def test_a_run_reserves_before_it_begins_and_gives_back_what_it_did_not_use(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **changes(tmp_path))
    spent = spent_by(small.bill())
    assert settled(small.job, small.store, small.plan) == spent, "a project's cap is a cap too"
    with purse_of(small) as purse:
        share = share_of(small)
        assert share.spent == spent
        assert share.reserved.nano == 10 * USD + 10 * USD, "to leave, and ten seconds ahead"
        assert purse.allowance.limit == share.limit
        assert (share.run, share.output) == (2, small.config.output.path)
        assert " of 100 USD spent by 1 job; 20 USD reserved: " in line(small)
    assert (share_of(small).limit, share_of(small).run) == (spent, 0)


def test_a_job_that_was_killed_gives_back_what_it_held_when_its_status_is_asked(
    tmp_path: Path,
) -> None:
    small = half_done(tmp_path, "a")
    assert share_of(small).limit.nano == 30 * USD
    spent = spent_by(small.bill())
    cost = f"{spent.nano / USD:.9f}".rstrip("0").rstrip(".")
    assert line(small) == f"project    shop: {cost} of 100 USD spent by 1 job; nothing reserved"
    assert share_of(small).limit == spent


def test_a_job_finds_what_a_run_held_that_said_that_it_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = half_done(tmp_path, "a", **{"budget.project_max_cost": "35"})
    write_run_end(dead.store, 1, "killed by the machine")
    other = half_done(tmp_path, "b", **{"budget.project_max_cost": "35"})
    with caplog.at_level(logging.INFO, "imagemill"), purse_of(other):
        assert share_of(dead).run == 0
        assert share_of(other).reserved.nano > 10 * USD
    gone = f"{dead.config.output.path} no longer holds a share of the project's budget: its run 1"
    assert any(text.startswith(gone) for text in caplog.messages)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project.settle_others, "__kwdefaults__", {"watch_s": 0.1})


@pytest.mark.usefixtures("impatient")
def test_a_job_finds_what_a_run_held_that_gives_no_sign_of_life(tmp_path: Path) -> None:
    dead = half_done(tmp_path, "a", **{"budget.project_max_cost": "35"})
    other = half_done(tmp_path, "b", **{"budget.project_max_cost": "35"})
    with purse_of(other):
        assert share_of(dead).run == 0


def test_a_run_that_reserved_and_is_about_to_begin_is_left_alone(tmp_path: Path) -> None:
    settings = changes(tmp_path, **{"output.path": str(tmp_path / "a")})
    soon = prepare_small_job(tmp_path, ROWS, **settings)
    project = mine(soon, run=1, spent=NOTHING)
    project.reserve(Spent(nano=95 * USD))
    other = half_done(tmp_path, "b")
    mine(other, run=1, spent=NOTHING).settle_others()
    assert share_of(soon).run == 1
    old = replace(share_of(soon), at="2026-01-01T00:00:00+00:00")
    records_of(soon.job, soon.store).change(lambda budget: old)
    mine(other, run=1, spent=NOTHING).settle_others()
    assert (share_of(soon).run, share_of(soon).limit) == (0, NOTHING)


def held(tmp_path: Path, **more: Any) -> tuple[SmallJob, SmallJob]:
    """A job that holds 95 of 100 USD and is about to begin, and one that was stopped."""
    settings = changes(tmp_path, **{"output.path": str(tmp_path / "a")})
    holder = prepare_small_job(tmp_path, ROWS, **settings)
    mine(holder, run=1, spent=NOTHING).reserve(Spent(nano=95 * USD, ns=1))
    settings = changes(tmp_path, **{"output.path": str(tmp_path / "b"), **more})
    return holder, run_small_job(tmp_path, ROWS, shards=[0], **settings)


def test_a_run_for_which_others_leave_too_little_is_refused_and_told_who_they_are(
    tmp_path: Path,
) -> None:
    holder, small = held(tmp_path)
    with pytest.raises(BudgetSpent) as caught, purse_of(small):
        pass
    text = str(caught.value)
    assert text.startswith(
        "too little is left of the budget of project 'shop' for 1 worker to begin and leave in "
        "order: 0 of 100 USD spent; 95 USD reserved: "
    )
    assert f"reserved: {holder.config.output.path} (run 1) 95 USD; nothing was started" in text
    assert text.endswith(
        "; wait for those that hold some, or go on with more: imagemill resume "
        f"{small.store.url} budget.project_max_cost=…"
    )
    with pytest.raises(ConfigError, match=r"or go on with more: give a higher budget\.project_max"):
        purse_of(small, after=0).__enter__()
    more = replace(small.job.config.budget, project_max_cost="200")
    job = replace(small.job, config=replace(small.job.config, budget=more))
    with purse_of(replace(small, job=job)):
        assert recorded(small).used.nano > 95 * USD


def test_a_cap_that_the_workers_of_one_run_would_use_to_leave_is_told_as_such(
    tmp_path: Path,
) -> None:
    small = run_small_job(
        tmp_path, ROWS, shards=[0], **changes(tmp_path, **{"budget.project_max_cost": "15"})
    )
    many = replace(ONE, workers=2)
    says = r"^budget\.project_max_cost=15 USD is too small: 20 USD are kept for 2 workers"
    with pytest.raises(BudgetSpent, match=says), purse_of(small, size=many):
        pass


def test_hours_of_a_project_are_kept_too(tmp_path: Path) -> None:
    caps = {"budget.project_max_cost": None, "budget.project_max_hours": 1}
    small = run_small_job(tmp_path, ROWS, shards=[0], **changes(tmp_path, **caps))
    with purse_of(small) as purse:
        ahead = (3590 * 10**9 - share_of(small).spent.ns) // 50
        assert share_of(small).reserved.ns == 10 * 10**9 + ahead
        assert purse.allowance.caps.nano is None
        assert " of 1 hours spent by 1 job; 0.02" in line(small)


def test_after_a_job_without_prices_a_project_can_only_cap_its_hours(tmp_path: Path) -> None:
    unpriced = {"pricing.price_per_hour": None, "pricing.instance_type": "nowhere"}
    first = half_done(tmp_path, "a", **unpriced)
    write_run_end(first.store, 1, "ended")
    line(first)
    assert share_of(first).unpriced
    other = half_done(tmp_path, "b")
    with pytest.raises(ConfigError) as caught, purse_of(other):
        pass
    assert str(caught.value) == (
        f"budget.project_max_cost cannot be kept: {first.config.output.path} had workers without a "
        "price; nothing was started; cap the hours instead, which count all workers: "
        "budget.project_max_cost=null budget.project_max_hours=…"
    )


def test_a_run_that_is_refused_for_what_another_job_turned_out_to_be_holds_nothing(
    tmp_path: Path,
) -> None:
    unpriced = {"pricing.price_per_hour": None, "pricing.instance_type": "nowhere"}
    first = half_done(tmp_path, "a", **unpriced)
    mine(first, run=1, spent=NOTHING).reserve(Spent(nano=85 * USD))
    write_run_end(first.store, 1, "ended")
    other = half_done(tmp_path, "b", **{"output.path": str(tmp_path / "c")})
    with pytest.raises(ConfigError, match="had workers without a price"), purse_of(other):
        pass
    assert share_of(first).unpriced
    assert share_of(other).run == 0


def test_a_job_whose_output_this_one_cannot_even_ask_keeps_what_it_holds(tmp_path: Path) -> None:
    small = half_done(tmp_path, "a")
    away = replace(share_of(small), job="away", output="gopher://away")
    records_of(small.job, small.store).change(lambda budget: away)
    mine(small, run=2, spent=NOTHING).settle_others()
    assert recorded(small).shares["away"] == away


def snapshot(nano: int, reserved: int = 10 * USD) -> Snapshot:
    return snapshot_of(spent=Spent(nano=nano), reserved=Spent(nano=reserved))


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s, never = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s
        never.wait(0.01)


def test_a_run_reserves_more_while_it_goes_on_until_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 0.01)
    small = run_small_job(tmp_path, ROWS, shards=[0], **changes(tmp_path))
    with purse_of(small) as purse:
        first = purse.allowance.limit.nano
        assert purse.see(snapshot(0)) is None
        purse.see(snapshot(40 * USD))
        eventually(lambda: purse.allowance.limit.nano >= 50 * USD)
        told = purse.see(snapshot(40 * USD))
        assert told is not None
        assert first < told.limit.nano <= 100 * USD
        purse.see(snapshot(95 * USD))
        eventually(lambda: purse.allowance.limit.nano == 100 * USD)
        says = "little is left of the budget of project 'shop': "
        eventually(lambda: any(text.startswith(says) for text in caplog.messages))


def test_a_run_never_reserves_more_than_its_own_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 0.01)
    own = changes(tmp_path, **{"budget.max_cost": "60"})
    small = run_small_job(tmp_path, ROWS, shards=[0], **own)
    with purse_of(small) as purse:
        for spent in (58, 59, 60):
            purse.see(snapshot(spent * USD))
            eventually(lambda: purse.allowance.limit.nano >= 60 * USD)
    found = records_of(small.job, small.store)
    assert found.read().number == 3, "it was begun, grew once and was settled"


def test_a_driver_that_was_taken_for_dead_has_its_share_again_or_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 0.01)
    small = run_small_job(tmp_path, ROWS, shards=[0], **changes(tmp_path))
    begin_run(small.store, config=small.config)
    with purse_of(small) as purse:
        write_run_end(small.store, 2, "taken for dead")
        line(small)
        assert share_of(small).run == 0
        other = mine(half_done(tmp_path, "b"), run=2, spent=NOTHING)
        other.reserve(Spent(nano=100 * USD))
        purse.see(snapshot(60 * USD))
        eventually(lambda: purse.allowance.limit.nano < 60 * USD)


def test_a_cap_of_a_project_needs_a_place_for_it() -> None:
    words = ["input.path=x", "output.path=y"]
    with pytest.raises(ConfigError) as caught:
        prepare([*words, "budget.project_max_cost=5"])
    assert str(caught.value) == (
        "budget.project_max_cost needs budget.store: one folder or URL for all jobs of the "
        "project, in which they say what they reserve, such as budget.store=s3://bucket/budgets"
    )
    with pytest.raises(ConfigError, match=r"^budget\.project_max_hours needs budget\.store"):
        prepare([*words, "budget.project_max_hours=5"])
    with pytest.raises(ConfigError, match=r"budget\.project_max_cost is 'much'; expected a dec"):
        prepare([*words, "budget.project_max_cost=much", "budget.store=z"])


def test_a_place_is_kept_as_an_absolute_path_without_secrets(tmp_path: Path) -> None:
    small = half_done(tmp_path, "a")
    more = open_job(small.store.url, ["budget.project_max_cost=7"])[0]
    assert more.config.budget.store == small.config.budget.store, "it need not be given again"
    given = open_job(small.store.url, ["budget.store=here"])[0]
    assert given.config.budget.store == str(Path.cwd() / "here")
    with pytest.raises(ConfigError, match=r"budget\.store s3://…@bucket/x carries credentials"):
        open_job(small.store.url, ["budget.store=s3://me:secret@bucket/x"])


def test_a_budget_that_cannot_be_read_hides_no_status(tmp_path: Path) -> None:
    small = half_done(tmp_path, "a")
    (record,) = (tmp_path / "budgets").glob("*/*/*.json")
    record.write_text("broken")
    assert line(small).startswith("project    shop: its budget is not known: ")


@pytest.mark.usefixtures("impatient")
def test_a_run_that_waits_holds_a_part_of_what_is_left_so_that_many_may_begin(
    tmp_path: Path,
) -> None:
    """At hardly any price: what a run holds ahead is then all that it holds."""
    cheap = changes(tmp_path, **{"pricing.price_per_hour": "0.000000001"})
    with ExitStack() as stack:
        for number in range(52):
            settings = {**cheap, "output.path": str(tmp_path / f"job{number}")}
            one = prepare_small_job(tmp_path, ROWS[:1], **settings)
            stack.enter_context(purse_of(one, after=0))
        budget = recorded(one)
        shares = [share.reserved.nano for share in budget.open]
        assert len(shares) == 52
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == pytest.approx(2 * USD, rel=1e-3)
        assert budget.used.nano == pytest.approx(100 * USD * (1 - 0.98**52), rel=1e-3)
    assert recorded(one).used == NOTHING


def test_who_holds_a_budget_is_told_apart_from_who_spent_it(tmp_path: Path) -> None:
    names = [f"job{number}" for number in range(5)]
    shares = {
        name: JobShare(
            job=name,
            output=f"/{name}",
            spent=Spent(nano=(name == "job0") * 3 * USD, ns=HOUR),
            reserved=Spent(nano=(name != "job0") * 2 * USD, ns=HOUR // 2),
            run=int(name != "job0"),
        )
        for name in names
    }
    caps = Caps(nano=100 * USD, ns=None, currency="USD")
    budget = ProjectBudget(number=5, shares=shares)
    assert in_words(caps, budget, mine="job2") == (
        "3 of 100 USD spent by 5 jobs; 8 USD reserved: this run 2 USD, /job1 (run 1) 2 USD, "
        "/job3 (run 1) 2 USD, 1 other"
    )
    one = ProjectBudget(number=1, shares={"job1": shares["job1"]})
    assert in_words(replace(caps, ns=10 * HOUR), one) == (
        "0 of 100 USD and 1 of 10 hours spent by 1 job; 2 USD and 0.5 hours reserved: "
        "/job1 (run 1) 2 USD and 0.5 hours"
    )
