"""The sums that a budget keeps are those of its workers' accounts, however many there are."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.accounts import Account, Budget
from cluster.budget import Caps, Spent, reserve_of
from cluster.coordinator import Coordinator, WorkerProgress

SECOND = 10**9
HOUR = 3600 * SECOND
LEAVE_S = 7.0

steps = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.booleans(),
        st.sampled_from([None, 0, 1, 7 * HOUR, HOUR // 7]),
        st.integers(0, 10**12),
        st.floats(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps)
def test_what_is_spent_and_reserved_is_what_all_accounts_come_to(
    steps: list[tuple[str, bool, int | None, int, float]],
) -> None:
    caps = Caps(nano=None, ns=None, currency="USD")
    budget = Budget(caps, Spent(nano=5, ns=3), leave_s=LEAVE_S)
    accounts: dict[str, Account] = {}
    settled, now_s = Spent(nano=5, ns=3), 1000.0
    for worker, ends, price, amount, passed_s in steps:
        now_s += passed_s
        if ends:
            budget.gone(worker, now_s)
            if worker in accounts:
                settled += accounts.pop(worker).at(now_s)
        else:
            spent = Spent(nano=amount, ns=amount)
            told = Account(spent=spent, nano_per_hour=price, seen_at_s=now_s)
            known = accounts[worker].at(now_s) if worker in accounts else Spent()
            accounts[worker] = told.at_least(known)
            budget.report(worker, told)
        later_s = now_s + 1.5
        alone = sum((account.at(later_s) for account in accounts.values()), settled)
        together = budget.spent(later_s)
        assert together.ns == alone.ns
        assert alone.nano - len(accounts) <= together.nano <= alone.nano, "rounded up once"
        reserves = (reserve_of(account.nano_per_hour, LEAVE_S) for account in accounts.values())
        assert budget.reserved(later_s) == sum(reserves, Spent())
    for worker in "abcd":
        budget.gone(worker, now_s)
    assert budget.spent(now_s + 99) == sum((a.at(now_s) for a in accounts.values()), settled)
    assert budget.reserved(now_s) == Spent()


def test_a_price_of_less_than_a_unit_is_rounded_up_for_all_together() -> None:
    budget = Budget(Caps(nano=1, ns=None, currency="USD"), Spent(), leave_s=0)
    for worker in "ab":
        budget.report(worker, Account(spent=Spent(), nano_per_hour=1, seen_at_s=0.0))
    assert budget.stop(0) == ""
    assert budget.spent(0.001).nano == 1
    assert budget.stop(0.001).startswith("budget.max_cost=0.000000001 USD is all but used")


def test_a_worker_without_a_price_that_has_one_later_stops_nobody() -> None:
    budget = Budget(Caps(nano=HOUR, ns=None, currency="USD"), Spent(), leave_s=0)
    for worker in "ab":
        budget.report(worker, Account(spent=Spent(), nano_per_hour=None, seen_at_s=0.0))
    assert budget.stop(0).endswith("worker a has no price")
    budget.report("a", Account(spent=Spent(), nano_per_hour=1, seen_at_s=0.0))
    assert budget.stop(0).endswith("worker b has no price")
    budget.gone("b", 0)
    assert budget.stop(0) == ""


def test_a_beat_costs_a_coordinator_no_more_work_with_more_workers() -> None:
    assert calls_of_a_beat(workers=300) == calls_of_a_beat(workers=3)


def calls_of_a_beat(workers: int) -> int:
    """How many functions are called while one worker of so many beats."""
    budget = Budget(Caps(nano=10**18, ns=None, currency="USD"), Spent(), leave_s=LEAVE_S)
    coordinator = Coordinator(iter(range(9)), total=9, lease_s=60, budget=budget, clock=lambda: 5.0)
    progress = WorkerProgress(
        phase="running",
        holding={},
        made=0,
        occupied=0,
        offered=0,
        lifetime_ns=SECOND,
        cost_nano=SECOND,
        nano_per_hour=HOUR,
    )
    for number in range(workers):
        coordinator.beat(str(number), progress)
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        coordinator.beat("0", progress)
    finally:
        sys.setprofile(before)
    return calls
