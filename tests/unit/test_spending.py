"""A job's budget from run to run: kept, raised, and refused where nothing is left of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import layout
from cluster.budget import CUT_OFF, Spent
from cluster.job_log import JobRecord, write_run_end
from cluster.money import as_decimal
from cluster.nodes import Node, Shape
from cluster.ray_session import Resources
from cluster.records import stamp_from_json, to_json
from cluster.supervisor import RunEnd
from cluster.traffic import Requests
from conf.errors import BudgetSpent, ConfigError
from conf.price_book import book_of, read_book
from jobs.configure import compose
from jobs.finish import finish
from jobs.open_job import next_book, open_job
from jobs.spending import keys_to_go_on, refuse_spent, refuse_too_small, settled
from jobs.status import status, status_lines
from jobs.summary import summary_lines
from tests.small_jobs import SmallJob, begin_run, run_small_job

ROWS = [{"prompt": f"picture {number}"} for number in range(8)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
DEAR = {"pricing.price_per_hour": "3600"}


def half_done(tmp_path: Path, **changes: Any) -> SmallJob:
    return run_small_job(tmp_path, ROWS, shards=[0], **TINY, **DEAR, **changes)


def refuse(job: JobRecord, small: SmallJob) -> None:
    """Before a run at the job's own prices."""
    refuse_spent(job, small.store, small.plan, book_of(job.config.pricing))


def test_what_earlier_runs_cost_is_settled_and_looked_at_only_where_there_is_a_cap(
    tmp_path: Path,
) -> None:
    small = half_done(tmp_path, **{"budget.max_cost": "1000000", "pricing.storage_months": 1})
    bill = small.bill()
    assert settled(small.job, small.store, small.plan) == Spent(
        nano=bill.total_amount - bill.amount.get("storage", 0), ns=bill.total_ns
    )
    free = replace(small.job.config.budget, max_cost=None)
    job = replace(small.job, config=replace(small.job.config, budget=free))
    assert settled(job, small.store, small.plan) == Spent()


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"budget.max_cost": "0.000001"}, "budget.max_cost=0.000001 USD is all but used: "),
        ({"budget.max_hours": 0.000001}, "budget.max_hours=1e-06 is all but used: workers lived"),
    ],
)
def test_a_run_for_which_nothing_is_left_is_refused(
    tmp_path: Path, budget: dict[str, Any], says: str
) -> None:
    small = half_done(tmp_path, **budget)
    with pytest.raises(BudgetSpent) as caught:
        refuse(small.job, small)
    (key,) = budget
    how = f"; nothing was started; go on with: imagemill resume {small.store.url} {key}=…"
    assert str(caught.value).startswith(says)
    assert str(caught.value).endswith(how)
    more = [f"{key}=1000000"]
    job, _ = open_job(small.store.url, more)
    refuse(job, small)


def test_a_budget_stays_what_it_was_last_set_to(tmp_path: Path) -> None:
    small = half_done(tmp_path, **{"budget.max_cost": "5"})
    url = small.store.url
    assert open_job(url)[0].config.budget.max_cost == "5"
    raised = open_job(url, ["budget.max_cost=7", "budget.alert=tell me"])[0].config
    assert (raised.budget.max_cost, raised.budget.alert) == ("7", "tell me")
    assert open_job(url, ["budget.max_cost=null"])[0].config.budget.max_cost is None
    begin_run(small.store, config=raised)
    again = open_job(url)[0].config.budget
    assert (again.max_cost, again.alert) == ("7", None), "who is alerted is never written"
    with pytest.raises(ConfigError, match=r"budget\.max_cost is 'much'; expected a decimal"):
        open_job(url, ["budget.max_cost=much"])


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("budget.max_cost=5 USD is all but used: 4.9 USD are spent", " budget.max_cost=…"),
        (f"{CUT_OFF}, so that nothing more could be reserved", ""),
    ],
)
def test_a_run_that_its_budget_ended_says_what_is_left(
    tmp_path: Path, reason: str, more: str
) -> None:
    small = half_done(tmp_path, **{"budget.max_cost": "5"})
    end = RunEnd(finished=False, reason=reason, snapshot=None, restarts=0)  # type: ignore[arg-type]
    ended = finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=1.0)
    lines = summary_lines(small.job, ended, 3)
    assert f"stopped    {reason}" in lines
    (left,) = [line for line in lines if line.startswith("left ")]
    assert left.startswith("left       4 rows, about ")
    assert left.endswith(" USD at what a row has cost so far")
    assert lines[-1] == f"next       imagemill resume {small.store.url}{more}"


@pytest.mark.parametrize(
    ("reason", "keys"),
    [
        ("budget.max_cost=5 USD is all but used: 4.9 USD are spent", " budget.max_cost=…"),
        ("budget.max_hours=2 is all but used: workers lived 1.9 hours", " budget.max_hours=…"),
        (
            "budget.max_cost cannot be kept: worker r0001-w0000 has no price",
            " budget.max_cost=null budget.max_hours=…",
        ),
        ("asked to stop", ""),
    ],
)
def test_summary_and_status_say_which_keys_a_resume_needs(
    tmp_path: Path, reason: str, keys: str
) -> None:
    small = half_done(tmp_path)
    write_run_end(small.store, 1, reason)
    end = RunEnd(finished=False, reason=reason, snapshot=None, restarts=0)  # type: ignore[arg-type]
    ended = finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=1.0)
    next_line = f"next       imagemill resume {small.store.url}{keys}"
    assert summary_lines(small.job, ended, 3)[-1] == next_line
    assert status_lines(status(small.store))[-1] == next_line


def test_what_would_only_let_the_workers_leave_again_is_not_begun_with(tmp_path: Path) -> None:
    changes = {"budget.max_cost": "100", "job.commit_seconds": 30, "cluster.heartbeat_s": 1}
    small = half_done(tmp_path, **changes)
    refuse(small.job, small)  # one worker would be kept 32 USD
    many = replace(small.job.config, cluster=replace(small.job.config.cluster, workers=4))
    with pytest.raises(BudgetSpent, match=r"128 USD are kept for workers to leave in order; noth"):
        refuse(replace(small.job, config=many), small)


def test_what_is_kept_for_leaving_is_by_the_price_of_the_next_run(tmp_path: Path) -> None:
    changes = {"budget.max_cost": "100", "job.commit_seconds": 30, "cluster.heartbeat_s": 1}
    small = half_done(tmp_path, **changes)
    dearer = ["pricing.price_per_hour=36000"]
    job, store = open_job(small.store.url, dearer)
    with pytest.raises(BudgetSpent, match=r", 320 USD are kept for workers to leave in order"):
        refuse_spent(job, store, small.plan, next_book(job, store, dearer))
    job, store = open_job(small.store.url, ["budget.max_cost=30"])
    with pytest.raises(BudgetSpent, match=r", 32 USD are kept for workers to leave in order"):
        refuse_spent(job, store, small.plan, next_book(job, store, []))
    cheaper = ["pricing.price_per_hour=36"]
    refuse_spent(job, store, small.plan, next_book(*open_job(small.store.url, cheaper), cheaper))


def test_a_book_whose_price_depends_on_the_machine_keeps_by_the_last_worker(
    tmp_path: Path,
) -> None:
    changes = {"budget.max_cost": "30", "job.commit_seconds": 30, "cluster.heartbeat_s": 1}
    small = half_done(tmp_path, **changes)
    book = book_of(small.config.pricing)
    (cheap,) = (replace(entry, nano_per_hour=1) for entry in book.instances)
    for entries in ((cheap, cheap), (replace(cheap, gpus=8),), (replace(cheap, vcpus=8),)):
        with pytest.raises(BudgetSpent, match=r", 32 USD are kept for workers to leave in order"):
            refuse_spent(small.job, small.store, small.plan, replace(book, instances=entries))
    refuse_spent(small.job, small.store, small.plan, replace(book, instances=(cheap,)))


def test_the_status_says_how_much_of_the_budget_is_used(tmp_path: Path) -> None:
    small = half_done(tmp_path, **{"budget.max_cost": "100", "budget.max_hours": 2})
    (line,) = [line for line in status_lines(status(small.store)) if line.startswith("budget")]
    bill = small.bill()
    spent = f"{as_decimal(bill.total_amount).normalize():f}"
    hours = f"{bill.total_ns / 3.6e12:.4g}"
    assert line == f"budget     {spent} of 100 USD used, {hours} of 2 hours used"


def asked_the_store(small: SmallJob) -> None:
    """The job's worker wrote and read, as if to a store that charges for it."""
    key = layout.stamp(small.outcomes[0].worker)
    stamp = stamp_from_json(small.store.get(key) or b"", key)
    later = replace(stamp, requests=Requests(writes=5, reads=7), lifetime_ns=stamp.lifetime_ns + 1)
    small.store.put(key, to_json(later))


def test_a_cap_on_costs_is_refused_after_workers_without_a_price(tmp_path: Path) -> None:
    small = run_small_job(
        tmp_path, ROWS, shards=[0], **TINY, **{"pricing.instance_type": "nowhere"}
    )
    asked_the_store(small)
    url = small.store.url
    job, _ = open_job(url, ["budget.max_cost=5", "pricing.price_per_hour=1"])
    with pytest.raises(ConfigError) as caught:
        refuse(job, small)
    text = str(caught.value)
    assert text.startswith(
        "budget.max_cost cannot be kept, for earlier runs are not all priced: 1 of 1 worker: "
    )
    assert "; their time is in no amount, nor are 2 lines of storage and requests; noth" in text
    how = f"hours instead, which count all workers: imagemill resume {url} budget.max_cost=null "
    assert text.endswith(f"{how}budget.max_hours=…")
    job, _ = open_job(url, ["budget.max_cost=null", "budget.max_hours=100"])
    refuse(job, small)


def test_a_resume_says_that_a_cap_on_costs_leaves_out_requests_without_a_price(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = half_done(tmp_path, **{"budget.max_cost": "1000000"})
    refuse(small.job, small)
    assert "does not count" not in caplog.text
    asked_the_store(small)
    refuse(small.job, small)
    assert (
        "budget.max_cost does not count 2 lines of storage and requests: the price" in caplog.text
    )


HERE = Resources(
    shape=Shape(gpus=0.0),
    least=4,
    most=4,
    per_node=None,
    workers=4,
    threads=2,
    largest=Node(node_id="n", cpus=8, gpus=0, free_cpus=8, free_gpus=0),
)


def begins(shards: int = 9, book: str | None = None, **changes: Any) -> None:
    """A first run of four workers would begin, each of which may take 32 s to leave."""
    words = ["input.path=x", "output.path=y", *(f"{key}={value}" for key, value in changes.items())]
    config = compose(words)
    found = book_of(config.pricing)
    refuse_too_small(config, found if book is None else read_book(book), HERE, shards)


def test_a_first_run_whose_workers_could_only_leave_again_is_refused(tmp_path: Path) -> None:
    begins(**DEAR)
    begins(**DEAR, **{"budget.max_cost": "128.1"})
    with pytest.raises(ConfigError) as caught:
        begins(**DEAR, **{"budget.max_cost": "128"})
    assert str(caught.value) == (
        "budget.max_cost=128 USD is too small: 128 USD are kept for 4 workers to leave in order, "
        "within 32 s each (job.commit_seconds and two cluster.heartbeat_s); nothing was started; "
        "give more, or fewer cluster.workers, or a smaller job.commit_seconds"
    )
    begins(2, **DEAR, **{"budget.max_cost": "128"})
    with pytest.raises(ConfigError, match=r"max_hours=0\.03 is too small: 0\.03556 hours are kept"):
        begins(**{"budget.max_hours": 0.03})


def test_what_a_worker_costs_is_known_before_a_first_run_on_this_machine(tmp_path: Path) -> None:
    capped = {"budget.max_cost": "0.0008"}
    with pytest.raises(ConfigError, match=r"is too small: 0\.000888889 USD are kept for 4 workers"):
        begins(**capped)
    begins(**{"budget.max_cost": "0.0009"})
    begins(**capped, **{"cluster.address": "auto"})  # only its node can tell
    book = tmp_path / "book.yaml"
    book.write_text("version: b\ncurrency: USD\ninstances:\n- {price_per_hour: '3600', gpus: 8}\n")
    begins(book=str(book), **capped, **{"cluster.address": "auto"})


def test_a_run_without_prices_has_no_sum_left_to_be_told(tmp_path: Path) -> None:
    changes = {"budget.max_hours": 1, "pricing.instance_type": "nowhere"}
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **changes)
    end = RunEnd(finished=False, reason="budget.max_hours=1 is", snapshot=None, restarts=0)  # type: ignore[arg-type]
    ended = finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=1.0)
    assert "left       4 rows" in summary_lines(small.job, ended, 3)


def test_a_run_that_its_projects_budget_ended_says_which_keys_a_resume_needs() -> None:
    leaves = "budget.project_max_cost=5 USD leaves this job no more than 4 USD: 3 USD are spent"
    assert keys_to_go_on(leaves) == " budget.project_max_cost=…"
    unpriced = "budget.project_max_cost cannot be kept: worker r0001-w0000 has no price"
    instead = " budget.project_max_cost=null budget.project_max_hours=…"
    assert keys_to_go_on(unpriced) == instead
