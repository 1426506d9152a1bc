"""The fold over an output, and the ledger that it closes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from shard_records import PRICE, STAMP, opened

from cluster.job_log import open_retry
from cluster.lifetime import persist
from cluster.money import bill, charge
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import Totals, WorkerUse, add_stamps, close, fold, states, worker_lines
from tests.small_jobs import prepare_small_job, run_small_job, work_on

ROWS = [{"prompt": text} for text in ("a", "b", "", "d", "e", "f")]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def test_a_finished_output_sums_up_to_its_rows(tmp_path: Path) -> None:
    totals = run_small_job(tmp_path, ROWS, **TINY).totals()
    assert (totals.rows, totals.committed, totals.quarantined, totals.pending) == (6, 5, 1, 0)
    assert (totals.shards, totals.sealed, totals.images, totals.attempts) == (2, 2, 5, 1)
    assert totals.image_bytes > 0


def test_an_output_of_nothing_costs_nothing(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, ROWS, **TINY)
    assert small.totals() == Totals(rows=6, shards=2)
    closing = small.bill()
    assert (closing.total_ns, closing.total_amount) == (0, 0)
    assert sum(closing.amount.values()) == 0


def test_the_ledgers_of_the_commits_and_the_workers_close_over_two_runs(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    small = work_on(small)
    totals = small.totals()
    assert len(totals.workers) == 2
    closing = close(totals, 0)
    assert sum(closing.ns.values()) == closing.total_ns
    assert sum(closing.amount.values()) == closing.total_amount
    amounts = [
        amount
        for entry in small.store.listing("ledger/")
        for amount in read_parquet(small.store.get(entry.key) or b"")["amount_nano"].to_pylist()
    ]
    assert sum(amounts) == closing.amount["used"]
    others = sum(line.amount_nano for line in worker_lines(totals))
    assert sum(amounts) + others == closing.total_amount


def test_a_worker_that_committed_nothing_is_billed_by_its_stamps(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, ROWS, **TINY)
    for seq in range(3):  # each takes the place of the one before
        persist(small.store, replace(STAMP, worker="lost", seq=seq, lifetime_ns=seq * 10**9))
    assert [entry.key for entry in small.store.listing("workers/")] == ["workers/lost.json"]
    closing = small.bill()
    assert closing.total_ns == closing.ns["idle"] == 2 * 10**9
    assert closing.total_amount == bill(PRICE, 2 * 10**9)


def test_attempts_are_those_of_the_shard_with_the_most_whatever_was_sealed(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    assert small.totals().attempts == 1
    open_retry(small.store, (0,), after=0)
    small = work_on(small, shards=[0], generation=1)
    assert small.totals().attempts == 2
    attempts = {
        attempt
        for folder in ("metadata/", "quarantine/")
        for entry in small.store.listing(folder)
        for attempt in read_parquet(small.store.get(entry.key) or b"")["attempt"].to_pylist()
    }
    assert attempts == {1, 2}


def test_stamps_only_ever_extend_a_lifetime() -> None:
    use = WorkerUse()
    use.see(replace(STAMP, lifetime_ns=5))
    use.see(replace(STAMP, lifetime_ns=3))
    assert use.stamp is not None
    assert use.stamp.lifetime_ns == 5


def test_workers_without_a_stamp_are_not_in_the_totals(tmp_path: Path) -> None:
    totals = Totals()
    add_stamps(Store(str(tmp_path)), totals)
    assert totals.workers == {}


def test_states_of_opened_shards_come_in_plan_order_whatever_their_number(tmp_path: Path) -> None:
    rows = [{"prompt": "x"}] * 2100
    small = prepare_small_job(tmp_path, rows, **{"input.shard_rows": 1})
    ids = [*range(5, 90), *range(998, 1003), 2099]
    for shard_id in reversed(ids):
        opened(small.store, shard_id)
    assert [state.shard_id for state in states(small.store, small.plan)] == ids
    among = states(small.store, small.plan, iter([3, 7, 999, 1500, 2099]))
    assert [state.shard_id for state in among] == [7, 999, 2099]
    assert fold(small.store, PlanReader(small.store)).pending == 2100


@given(
    workers=st.lists(
        st.tuples(*[st.integers(0, 10**13)] * 4), max_size=5, unique_by=lambda parts: parts
    )
)
def test_the_bill_closes_for_any_lifetimes(workers: list[tuple[int, int, int, int]]) -> None:
    price = replace(PRICE, nano_per_hour=100_000_007)
    totals = Totals()
    for number, (used, wasted, overhead, idle) in enumerate(workers):
        totals.workers[f"w{number}"] = WorkerUse(
            used_ns=used,
            used_amount=charge(price, used) or 0,
            stamp=replace(
                STAMP,
                worker=f"w{number}",
                price=price,
                lifetime_ns=used + wasted + overhead + idle,
                busy_ns=used + wasted,
                overhead_ns=overhead,
            ),
        )
    closing = close(totals, 0)
    assert sum(closing.ns.values()) == closing.total_ns == sum(sum(parts) for parts in workers)
    assert sum(closing.amount.values()) == closing.total_amount
