"""A cap holds whatever workers do, and what it is short of is told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.accounts import Account, Budget
from cluster.budget import Caps, Spent, leave_s, reserve_of
from cluster.coordinator import Coordinator, WorkerProgress
from cluster.leases import Dismiss, Grant
from conf.errors import ConfigError
from jobs.configure import compose
from operators.engine import EngineInfo

SECOND = 10**9
HOUR = 3600 * SECOND
BEAT_S = 1.0
COMMIT_S = 5.0
LEAVE_S = 2 * BEAT_S + COMMIT_S


def caps(nano: int | None = None, ns: int | None = None) -> Caps:
    return Caps(nano=nano, ns=ns, currency="USD")


def account(nano: int, ns: int, price: int | None = HOUR, at_s: float = 0.0) -> Account:
    """At the price of 1 nano a nanosecond, unless said otherwise."""
    return Account(spent=Spent(nano=nano, ns=ns), nano_per_hour=price, seen_at_s=at_s)


@dataclass(slots=True)
class Life:
    """A worker: what it costs, when it begins, when it is killed, how long it takes to leave."""

    price: int
    begins_s: float
    dies_s: float
    leaving_s: float
    phase_s: float

    def cost(self, until_s: float) -> float:
        lived_s = min(until_s, self.dies_s) - self.begins_s
        return max(0.0, lived_s) * SECOND * self.price / HOUR


lives = st.lists(
    st.builds(
        Life,
        price=st.integers(0, 50 * HOUR),
        begins_s=st.sampled_from([0.0, 0.0, 0.0, 7.0, 30.0]),
        dies_s=st.integers(31, 400).map(float),
        leaving_s=st.floats(0, COMMIT_S),
        phase_s=st.floats(0, 0.99),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(lives=lives, cap=st.integers(1, 10**13), settled=st.integers(0, 10**11))
def test_the_cap_is_passed_by_no_more_than_a_commit_interval_a_worker(
    lives: list[Life], cap: int, settled: int
) -> None:
    """Workers of any prices begin, beat, are killed, hear of the end with a beat and leave."""
    budget = Budget(caps(cap), Spent(nano=settled), leave_s=LEAVE_S)
    ends: dict[int, float] = {}
    stopped_s: float | None = None
    for beat in range(500):
        for number, life in sorted(enumerate(lives), key=lambda item: item[1].phase_s):
            now_s = beat * BEAT_S + life.phase_s
            if number in ends or now_s < life.begins_s + BEAT_S / 2:
                continue
            if now_s >= life.dies_s:
                budget.gone(str(number), now_s)
                ends[number] = life.dies_s
                continue
            if stopped_s is not None:  # this beat tells it to go
                ends[number] = now_s + life.leaving_s
                continue
            lived_ns = int((now_s - life.begins_s) * SECOND)
            spent = Spent(nano=lived_ns * life.price // HOUR, ns=lived_ns)
            budget.report(
                str(number), Account(spent=spent, nano_per_hour=life.price, seen_at_s=now_s)
            )
            if budget.stop(now_s):
                stopped_s = now_s
                ends[number] = now_s + life.leaving_s
    total = settled + sum(life.cost(ends[number]) for number, life in enumerate(lives))
    newcomers = sum(life.price for life in lives) * (LEAVE_S + BEAT_S) * SECOND / HOUR
    if settled < cap:
        assert total <= cap + newcomers + len(lives)
    if all(life.begins_s == 0 for life in lives) and cap > settled + 2 * newcomers:
        assert total <= cap + len(lives), "who was there from the start has left in time"


def test_what_is_in_flight_counts_with_the_time_that_leaving_takes() -> None:
    budget = Budget(caps(100 * SECOND), Spent(nano=50 * SECOND), leave_s=10)
    budget.report("a", account(10 * SECOND, 10 * SECOND))
    budget.report("b", account(5 * SECOND, 5 * SECOND))
    assert budget.spent(0) == Spent(nano=65 * SECOND, ns=15 * SECOND)
    assert budget.stop(0) == ""
    assert budget.stop(7.4) == ""  # 65 + 2 x 7.4 spent, 2 x 10 reserved
    assert budget.stop(7.5) == (
        "budget.max_cost=100 USD is all but used: 80 USD are spent, 20 USD are kept for "
        "workers to leave in order"
    )
    budget.gone("a", 7.5)
    assert budget.stop(7.5) == ""
    assert budget.spent(8.5) == Spent(nano=81 * SECOND, ns=31 * SECOND)


def test_hours_are_those_of_all_workers_together() -> None:
    budget = Budget(caps(ns=HOUR), Spent(ns=HOUR // 2), leave_s=0)
    budget.report("a", account(0, HOUR // 4, price=None))
    assert budget.stop(899) == ""
    assert budget.stop(900) == (
        "budget.max_hours=1 is all but used: workers lived 1 hours, 0 are kept for them to leave "
        "in order"
    )


def test_a_worker_without_a_price_cannot_be_kept_within_a_cost() -> None:
    budget = Budget(caps(10**18), Spent(), leave_s=1)
    budget.report("a", account(0, 0, price=None))
    assert budget.stop(0) == "budget.max_cost cannot be kept: worker a has no price"


def test_rounding_never_lets_a_cap_be_passed() -> None:
    assert reserve_of(1, 1.0) == Spent(nano=1, ns=SECOND)
    assert reserve_of(None, 1.0) == Spent(nano=0, ns=SECOND)
    assert reserve_of(HOUR, 1.5, workers=4) == Spent(nano=6 * SECOND, ns=6 * SECOND)


def test_the_share_that_is_used_is_of_the_tighter_cap() -> None:
    assert caps().share(Spent(nano=5)) == 0
    assert caps(100, 1000).share(Spent(nano=50, ns=900)) == 0.9
    assert caps(0).share(Spent()) == 1.0


def test_the_caps_are_those_that_were_asked_for() -> None:
    config = compose(
        ["input.path=x", "output.path=y", "budget.max_cost=0.000000001", "budget.max_hours=1.5"]
    )
    assert Caps.of(config.budget, "EUR") == Caps(nano=1, ns=5400 * SECOND, currency="EUR")
    assert leave_s(config) == 2 * config.cluster.heartbeat_s + config.job.commit_seconds
    with pytest.raises(ConfigError, match=r"budget\.max_cost is 'lots'; expected a decimal"):
        compose(["input.path=x", "output.path=y", "budget.max_cost=lots"])


def progress(nano: int, price: int = HOUR) -> WorkerProgress:
    return WorkerProgress(
        phase="running",
        holding={},
        made=0,
        occupied=0,
        offered=0,
        lifetime_ns=nano,
        cost_nano=nano,
        nano_per_hour=price,
    )


def test_a_coordinator_grants_nothing_more_once_the_budget_is_used() -> None:
    now = [0.0]
    coordinator = Coordinator(
        iter(range(9)),
        total=9,
        lease_s=60,
        budget=Budget(caps(100 * SECOND), Spent(), leave_s=10),
        clock=lambda: now[0],
    )
    assert isinstance(coordinator.acquire("a"), Grant)
    assert not coordinator.beat("a", progress(80 * SECOND)).drain
    assert isinstance(coordinator.acquire("b"), Grant)
    now[0] = 10.0  # nobody says a word, and a is paid for
    found = coordinator.snapshot()
    assert found.over_budget.startswith("budget.max_cost=100 USD is all but used: 90 USD are")
    assert found.spent.nano == 90 * SECOND
    assert isinstance(coordinator.acquire("b"), Dismiss)
    assert coordinator.beat("b", progress(0)).drain
    coordinator.gone("a", crashed=True)
    now[0] = 20.0
    later = coordinator.snapshot()
    assert later.over_budget == found.over_budget
    assert later.spent.nano == 100 * SECOND  # a until it was gone, b since its beat


def test_a_worker_that_is_hired_and_silent_is_reserved_as_much_as_the_dearest() -> None:
    budget = Budget(caps(100 * SECOND, 99 * HOUR), Spent(), leave_s=10)
    budget.hired("a")
    assert budget.reserved(0) == Spent(nano=0, ns=10 * SECOND), "its price is not known yet"
    budget.report("a", account(0, 0))
    budget.report("b", account(0, 0, price=3 * HOUR))
    budget.hired("c")
    budget.hired("a")
    assert budget.reserved(0) == Spent(nano=(10 + 30 + 30) * SECOND, ns=30 * SECOND)
    budget.gone("c", 0)
    assert budget.reserved(0) == Spent(nano=40 * SECOND, ns=20 * SECOND)


def test_a_worker_is_paid_for_from_its_first_word_on_although_it_never_beats() -> None:
    now = [0.0]
    coordinator = Coordinator(
        iter(range(9)),
        total=9,
        lease_s=60,
        budget=Budget(caps(100 * SECOND), Spent(), leave_s=10),
        clock=lambda: now[0],
    )
    coordinator.hired("a")
    assert coordinator.snapshot().reserved == Spent(ns=10 * SECOND)
    now[0] = 50.0
    coordinator.begun("a", HOUR)
    assert coordinator.snapshot().spent == Spent()
    now[0] = 80.0
    found = coordinator.snapshot()
    assert (found.spent.nano, found.reserved.nano) == (30 * SECOND, 10 * SECOND)
    coordinator.beat("a", progress(31 * SECOND))
    coordinator.begun("a", HOUR)
    assert coordinator.snapshot().spent.nano == 31 * SECOND, "its beats know better"
    now[0] = 140.0
    assert coordinator.snapshot().over_budget.startswith("budget.max_cost=100 USD is all but used")
    coordinator.gone("b", crashed=False)
    for late in (coordinator.hired, lambda name: coordinator.begun(name, HOUR)):
        late("b")
    assert coordinator.snapshot().reserved.nano == 10 * SECOND, "who is gone is not waited for"


def test_of_a_worker_whose_servers_have_four_devices_four_hours_an_hour_are_reserved() -> None:
    coordinator = Coordinator(
        iter(range(9)), total=9, lease_s=60, budget=Budget(caps(None, HOUR), Spent(), leave_s=10)
    )
    servers = EngineInfo(
        name="triton",
        model="m",
        model_revision="r",
        device="servers",
        precision="float16",
        max_batch=8,
        simulated=False,
        devices=4,
    )
    coordinator.beat("a", replace(progress(0), engine=servers))
    assert coordinator.snapshot().reserved.ns == 40 * SECOND


def test_a_worker_without_a_price_ends_a_run_at_its_first_word() -> None:
    coordinator = Coordinator(
        iter(range(9)), total=9, lease_s=60, budget=Budget(caps(10**18), Spent(), leave_s=1)
    )
    coordinator.begun("a", None)
    says = "budget.max_cost cannot be kept: worker a has no price"
    assert coordinator.snapshot().over_budget == says
