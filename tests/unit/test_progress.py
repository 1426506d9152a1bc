"""Progress shows what is spent: the amount that the caps of budget.* are held against."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from cluster.actors import CoordinatorActor
from cluster.budget import Spent
from cluster.coordinator import Counts, Snapshot, WorkerProgress
from jobs.progress import ProgressDisplay
from tests.small_jobs import prepare_small_job, small_config
from tests.snapshots import snapshot_of

USD = 10**9


def shown(snapshot: Snapshot, *, capped: bool) -> str:
    """What a terminal sees."""
    console = Console(file=io.StringIO(), force_terminal=True, width=300)
    with ProgressDisplay(
        console, rows=9, currency="USD", simulated=False, capped=capped
    ) as display:
        display.show(snapshot)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def after_a_beat(tmp_path: Path, price: int | None, *, max_cost: str | None) -> Snapshot:
    """Of a run whose worker has cost 2 USD, and whose images half of that, after runs for 3 USD."""
    prepare_small_job(tmp_path, [{"prompt": "x"}])
    config = small_config(tmp_path, {"budget.max_cost": max_cost}).to_mapping()
    settled = Spent(nano=3 * USD) if max_cost else Spent()
    actor = CoordinatorActor(config, total=1, shards=None, lease_s=60, settled=settled)
    beat = WorkerProgress(
        phase="running",
        holding={0: Counts(amount_nano=USD)},
        made=1,
        occupied=1,
        offered=1,
        lifetime_ns=USD,
        cost_nano=2 * USD,
        nano_per_hour=price,
    )
    actor.beat("r0001-w0000", beat)
    return actor.snapshot()


@pytest.mark.parametrize(
    ("price", "max_cost", "says"),
    [
        (0, None, "2.00 USD spent in this run"),
        (0, "25", "5.00 USD spent so far"),
        (None, None, "cost not known"),
    ],
)
def test_progress_shows_what_is_spent_with_and_without_a_cap(
    tmp_path: Path, price: int | None, max_cost: str | None, says: str
) -> None:
    found = after_a_beat(tmp_path, price, max_cost=max_cost)
    assert f" quarantined, {says}" in shown(found, capped=max_cost is not None)
    assert found.over_budget == ""


@pytest.mark.parametrize("owned", [False, True])
def test_time_of_servers_that_others_use_too_is_not_shown_before_it_is_paid(
    tmp_path: Path, owned: bool
) -> None:
    prepare_small_job(tmp_path, [{"prompt": "x"}])
    servers = {
        "engine.name": "triton",
        "engine.precision": "auto",
        "engine.max_batch": None,
        "triton.url": "grpc://host:8001",
        "triton.owned": owned,
    }
    config = small_config(tmp_path, servers).to_mapping()
    actor = CoordinatorActor(config, total=1, shards=None, lease_s=60)
    actor.begun("r0001-w0000", 3600 * USD * 10**6)
    before = actor.snapshot().spent
    assert (before.nano == 0) is not owned, "a worker that loads has asked nothing of the servers"
    loading = WorkerProgress(
        phase="loading",
        holding={},
        made=0,
        occupied=0,
        offered=0,
        lifetime_ns=0,
        cost_nano=0,
        nano_per_hour=3600 * USD * 10**6,
    )
    actor.beat("r0001-w0000", loading)
    assert actor.snapshot().spent.nano >= before.nano


@pytest.mark.parametrize(
    ("settled", "says"), [(0, "cost not known yet"), (3 * USD, "3.00 USD spent so far")]
)
def test_nothing_is_said_of_this_runs_cost_until_a_price_is_known(
    tmp_path: Path, settled: int, says: str
) -> None:
    prepare_small_job(tmp_path, [{"prompt": "x"}])
    config = small_config(tmp_path, {"budget.max_cost": "25"}).to_mapping()
    actor = CoordinatorActor(config, total=1, shards=None, lease_s=60, settled=Spent(nano=settled))
    assert f" quarantined, {says}" in shown(actor.snapshot(), capped=True)
    actor.begun("r0001-w0000", 0)
    spent = f"{settled // USD}.00 USD spent" if settled else "0 USD spent"
    assert f" quarantined, {spent} so far" in shown(actor.snapshot(), capped=True)


@pytest.mark.parametrize(("finished", "says"), [(False, "starting workers"), (True, "finishing")])
def test_workers_that_have_left_a_finished_run_are_not_about_to_start(
    finished: bool, says: str
) -> None:
    assert says in shown(snapshot_of(finished=finished), capped=False)
