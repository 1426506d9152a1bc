"""What a run at a glance says to whoever decides how many workers it wants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.accounts import Account, Budget
from cluster.budget import Allowance, Caps, Room, Spent
from cluster.coordinator import Coordinator, WorkerProgress
from cluster.leases import Grant

SECOND = 10**9
HOUR = 3600 * SECOND
UNCAPPED = Caps(nano=None, ns=None, currency="USD")


def budget(caps: Caps, *, allowance: Allowance | None = None) -> Budget:
    """Of which 10 units of each kind are spent."""
    return Budget(caps, Spent(nano=10, ns=10), leave_s=1.0, allowance=allowance)


def test_without_a_cap_there_is_any_room() -> None:
    assert budget(UNCAPPED).room(0.0) == Room(nano=None, ns=None)


def test_the_room_is_what_the_caps_leave_beyond_all_that_was_spent() -> None:
    found = budget(replace(UNCAPPED, nano=100, ns=200))
    assert found.room(0.0) == Room(nano=90, ns=190)
    spent = Spent(nano=30, ns=40)
    found.report("ada", Account(spent=spent, nano_per_hour=HOUR, seen_at_s=0.0))
    assert found.room(0.0) == Room(nano=60, ns=150)
    assert found.room(10.0).nano == 60 - 10 * SECOND


@pytest.mark.parametrize(("own", "room"), [(None, 40), (30, 20), (70, 40)])
def test_of_the_jobs_and_the_projects_caps_the_tighter_one_counts(
    own: int | None, room: int
) -> None:
    """What the project leaves is far more than what it has reserved by now."""
    project = Allowance(
        caps=replace(UNCAPPED, nano=1000), limit=Spent(nano=12), most=Spent(nano=50)
    )
    found = budget(replace(UNCAPPED, nano=own), allowance=project)
    assert found.room(0.0) == Room(nano=room, ns=None)


def test_the_price_is_that_of_the_dearest_worker_seen() -> None:
    found = budget(UNCAPPED)
    assert found.dearest is None
    for worker, price in (("ada", 5), ("bob", 7), ("cyd", None)):
        found.report(worker, Account(spent=Spent(), nano_per_hour=price, seen_at_s=0.0))
    found.gone("bob", 0.0)
    assert found.dearest == 7


def test_a_run_at_a_glance_tells_who_is_useful_and_how_fast_a_worker_is() -> None:
    now_s = 0.0
    coordinator = Coordinator(
        iter(range(3)),
        total=3,
        lease_s=100.0,
        budget=budget(replace(UNCAPPED, nano=100)),
        clock=lambda: now_s,
    )
    assert isinstance(coordinator.acquire("ada"), Grant)
    assert isinstance(coordinator.acquire("ada"), Grant)
    for made, now_s in ((8, 10.0), (16, 14.0)):  # noqa: B007 - the clock reads it
        coordinator.beat(
            "ada",
            WorkerProgress(
                phase="running",
                holding={},
                made=made,
                occupied=0,
                offered=0,
                lifetime_ns=0,
                nano_per_hour=3,
            ),
        )
    found = coordinator.snapshot()
    assert (found.useful, found.rate, found.dearest) == (2, 2.0, 3)
    assert found.room.nano is not None
    coordinator.gone("ada", False)
    assert coordinator.snapshot().useful == 3
