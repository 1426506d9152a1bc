"""What a run has spent never falls, and of what is paid by use only what was told is spent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.accounts import Account, Budget
from cluster.budget import Caps, Spent

SECOND = 10**9
HOUR = 3600 * SECOND
NO_CAP = Caps(nano=None, ns=None, currency="USD")

steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["tells", "tells", "tells", "ends", "is hired"]),
        st.sampled_from([None, 1, HOUR // 7, 7 * HOUR]),
        st.integers(0, 10**10),
        st.floats(0, 3),
    ),
    max_size=40,
)


def account(nano: int, at_s: float, price: int | None = HOUR) -> Account:
    """At the price of 1 nano a nanosecond, unless said otherwise."""
    return Account(spent=Spent(nano=nano, ns=nano), nano_per_hour=price, seen_at_s=at_s)


@settings(max_examples=300, deadline=None)
@given(steps=steps, by_use=st.booleans())
def test_whatever_workers_tell_late_or_anew_nothing_that_was_spent_is_taken_back(
    steps: list[tuple[str, str, int | None, int, float]], by_use: bool
) -> None:
    budget = Budget(NO_CAP, Spent(nano=5, ns=3), leave_s=7.0, by_use=by_use)
    now_s, known = 1000.0, Spent(nano=5, ns=3)
    for worker, what, price, amount, passed_s in steps:
        now_s += passed_s
        for event in (None, what):
            if event == "tells":
                budget.report(worker, account(amount, now_s, price))
            elif event == "ends":
                budget.gone(worker, now_s)
            elif event == "is hired":
                budget.hired(worker)
            spent = budget.spent(now_s)
            assert spent.nano >= known.nano
            assert spent.ns >= known.ns
            known = spent


def test_a_report_that_was_long_on_its_way_does_not_take_back_what_was_counted() -> None:
    budget = Budget(NO_CAP, Spent(), leave_s=0)
    budget.report("a", account(1 * SECOND, 1.1))
    assert budget.spent(2.1).nano == 2 * SECOND
    budget.report("a", account(2 * SECOND, 2.4))
    assert budget.spent(2.4).nano == 2.3 * SECOND, "the first one took 0.2 s less"
    budget.report("a", account(3 * SECOND, 3.1))
    assert budget.spent(3.1).nano == 3 * SECOND


def test_what_is_paid_by_use_is_spent_when_it_is_told_and_reserved_until_then() -> None:
    budget = Budget(NO_CAP, Spent(nano=100 * SECOND), leave_s=10, by_use=True)
    budget.report("a", account(0, 0.0))
    for now_s in (0.0, 4.0):
        assert budget.spent(now_s) == Spent(nano=100 * SECOND)
        assert budget.reserved(now_s).nano == (10 + now_s) * SECOND
    budget.report("a", account(0, 4.0))
    assert budget.spent(4.0).nano == 100 * SECOND, "it loads: the servers did nothing for it"
    assert budget.reserved(4.0).nano == 10 * SECOND
    budget.report("a", account(3 * SECOND, 9.0))
    assert budget.spent(9.0) == Spent(nano=103 * SECOND, ns=3 * SECOND)


def test_what_a_worker_that_is_gone_used_and_did_not_tell_stays_reserved() -> None:
    budget = Budget(NO_CAP, Spent(), leave_s=10, by_use=True)
    budget.report("a", account(3 * SECOND, 5.0))
    budget.gone("a", 7.0)
    assert budget.spent(99.0) == Spent(nano=3 * SECOND, ns=3 * SECOND)
    assert budget.reserved(99.0) == Spent(nano=2 * SECOND, ns=2 * SECOND)


@pytest.mark.parametrize("by_use", [False, True])
def test_a_cap_stops_a_run_at_the_same_moment_however_its_workers_are_paid(by_use: bool) -> None:
    caps = Caps(nano=30 * SECOND, ns=None, currency="USD")
    budget = Budget(caps, Spent(), leave_s=10, by_use=by_use)
    budget.report("a", account(0, 0.0))
    budget.gone("a", 5.0)
    budget.report("b", account(0, 0.0))
    assert budget.stop(14.9) == ""
    assert budget.stop(15.0).startswith("budget.max_cost=30 USD is all but used")


@pytest.mark.parametrize("by_use", [False, True])
def test_hours_of_servers_are_those_of_all_their_devices_until_the_worker_has_left(
    by_use: bool,
) -> None:
    """Four devices are billed for each second: the cap of hours leaves them 10 s to leave."""
    caps = Caps(nano=None, ns=80 * SECOND, currency="USD")
    budget = Budget(caps, Spent(), leave_s=10, by_use=by_use)
    told = Account(spent=Spent(ns=20 * SECOND), nano_per_hour=4 * HOUR, seen_at_s=5.0, devices=4)
    budget.report("a", told)
    assert budget.reserved(5.0) == Spent(nano=40 * SECOND, ns=40 * SECOND)
    assert budget.stop(9.9) == ""
    assert budget.stop(10.0).startswith("budget.max_hours=0.0222222 is all but used")
    budget.gone("a", 6.0)
    assert budget.spent(9.0).ns + budget.reserved(9.0).ns == 24 * SECOND
