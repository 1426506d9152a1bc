"""Jobs of one project never reserve the same money, whatever they do at the same time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster import project_records
from cluster.accounts import Budget
from cluster.budget import NOTHING, Allowance, Caps, Spent
from cluster.project_budget import JobShare, ProjectBudget, replace_share, reserve, settle
from cluster.project_records import ProjectRecords
from cluster.store import Store
from conf.errors import CommitUnknown, ConfigError, CorruptOutput, StoreUnavailable
from tests.stores import ONCE, walk

CAP = 100
CAPS = Caps(nano=CAP, ns=None, currency="USD", keys="budget.project_")
HOUR = 3600 * 10**9


def share(job: str, reserved: int, *, run: int = 1, nonce: str = "n", spent: int = 0) -> JobShare:
    return JobShare(
        job=job,
        output=f"/out/{job}",
        spent=Spent(nano=spent),
        reserved=Spent(nano=reserved),
        run=run,
        nonce=nonce,
    )


@dataclass(slots=True)
class Job:
    """What a job really does; ``limit`` is how far its run may go."""

    name: str
    actual: int = 0
    run: int = 0
    base: int = 0
    limit: int = 0
    alive: bool = False

    def asks(self, reserved: int) -> JobShare:
        return share(
            self.name, reserved, run=self.run, nonce=f"{self.name}{self.run}", spent=self.base
        )


@dataclass(slots=True)
class World:
    """Four jobs of a project and what its records say."""

    budget: ProjectBudget = field(default_factory=ProjectBudget)
    jobs: tuple[Job, ...] = field(default_factory=lambda: tuple(Job(name) for name in "abcd"))

    def note(self, found: JobShare | None) -> bool:
        if found is not None:
            self.budget = replace_share(self.budget, found.job, found)
        return found is not None

    def begin(self, job: Job, amount: int) -> None:
        if not job.alive:
            job.run, job.base = job.run + 1, job.actual
            if self.note(reserve(self.budget, job.asks(amount), CAPS)):
                job.alive = True
                job.limit = self.budget.shares[job.name].limit.nano
            else:
                job.run -= 1  # it is not opened, and the run before is still the last one

    def more(self, job: Job, amount: int) -> None:
        asked = job.asks(job.limit - job.base + amount)
        if job.alive and self.note(reserve(self.budget, asked, CAPS)):
            job.limit = max(job.limit, self.budget.shares[job.name].limit.nano)

    def spend(self, job: Job, amount: int) -> None:
        if job.alive:
            job.actual = min(job.actual + amount, job.limit)

    def end(self, job: Job, _: int) -> None:
        job.alive = False
        self.found(job, 0)

    def die(self, job: Job, _: int) -> None:
        job.alive = False

    def found(self, job: Job, _: int) -> None:
        """Somebody sees that its run is over."""
        if not job.alive:
            spent, nonce = Spent(nano=job.actual), f"{job.name}{job.run}"
            self.note(settle(self.budget, job.name, nonce, spent, unpriced=False, at="now"))


STEPS = (World.begin, World.more, World.spend, World.end, World.die, World.found)


REFUSED_AFTER_A_DEATH = [
    (World.begin, 0, 53),
    (World.begin, 2, 47),
    (World.spend, 2, 47),
    (World.die, 2, 1),
    (World.begin, 2, 1),
]


@settings(max_examples=400, deadline=None)
@example(REFUSED_AFTER_A_DEATH)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.integers(1, 70)), max_size=60)
)
def test_all_jobs_of_a_project_together_stay_within_its_cap(
    steps: list[tuple[Callable[[World, Job, int], None], int, int]],
) -> None:
    world = World()
    for step, number, amount in steps:
        step(world, world.jobs[number], amount)
        actual = sum(job.actual for job in world.jobs)
        assert actual <= world.budget.used.nano <= CAP
        assert all(job.actual <= job.limit for job in world.jobs if job.alive)
    for job in world.jobs:
        world.end(job, 0)
    assert world.budget.used == world.budget.spent == Spent(nano=actual if steps else 0)
    assert world.budget.open == ()


def test_a_run_gets_what_is_left_and_never_less_than_it_has() -> None:
    world = ProjectBudget()
    first = reserve(world, share("a", 70), CAPS)
    assert first == share("a", 70)
    world = replace_share(world, "a", first)
    assert reserve(world, share("b", 50), CAPS) == share("b", 30)
    assert reserve(world, share("b", 50), CAPS, least=Spent(nano=30)) is None
    assert reserve(world, share("b", 50), CAPS, least=Spent(nano=29)) == share("b", 30)
    assert reserve(world, share("a", 10), CAPS) == share("a", 70)
    assert reserve(world, share("a", 10, run=2, nonce="m"), CAPS) == share(
        "a", 10, run=2, nonce="m"
    ), "a new run of a job does not need what the one before held"
    later = replace_share(world, "a", share("a", 10, run=2, nonce="m"))
    assert reserve(later, share("a", 70), CAPS) is None, "the later run is at work"


def test_what_is_not_capped_is_noted_for_jobs_that_cap_it() -> None:
    asked = replace(share("a", 5), reserved=Spent(nano=5, ns=77))
    assert reserve(ProjectBudget(), asked, CAPS) == asked


def test_a_share_is_settled_once_by_its_own_run_alone() -> None:
    world = replace_share(ProjectBudget(), "a", share("a", 70, run=2, nonce="m"))
    spent = Spent(nano=40)
    assert settle(world, "a", "n", spent, unpriced=False, at="x") is None
    assert settle(world, "b", "m", spent, unpriced=False, at="x") is None
    found = settle(world, "a", "m", spent, unpriced=True, at="x")
    assert found is not None
    assert (found.limit, found.run, found.unpriced, found.at) == (spent, 0, True, "x")
    assert settle(replace_share(world, "a", found), "a", "m", spent, unpriced=True, at="y") is None


def test_what_earlier_runs_came_to_stays_spent_where_the_ledger_is_gone() -> None:
    before = replace(share("a", 70, run=2, nonce="m"), spent=Spent(nano=30, ns=7))
    world = replace_share(ProjectBudget(), "a", before)
    found = settle(world, "a", "m", NOTHING, unpriced=False, at="x")
    assert found is not None
    assert found.limit == Spent(nano=30, ns=7)


def test_a_run_stops_where_its_projects_budget_leaves_it_no_more() -> None:
    own = Caps(nano=None, ns=None, currency="USD")
    hours = Caps(nano=None, ns=HOUR, currency="USD", keys="budget.project_")
    cost = replace(CAPS, nano=10**10)
    limits = Allowance(caps=cost, limit=Spent(nano=5 * 10**9, ns=1), most=Spent())
    budget = Budget(own, Spent(nano=3 * 10**9, ns=HOUR // 2), leave_s=0, allowance=limits)
    assert budget.stop(0) == ""
    budget.allowance = replace(limits, limit=Spent(nano=3 * 10**9))
    assert budget.stop(0) == (
        "budget.project_max_cost=10 USD leaves this job no more than 3 USD: 3 USD are spent, 0 USD "
        "are kept for workers to leave in order"
    )
    budget.allowance = Allowance(caps=hours, limit=Spent(ns=HOUR // 2), most=Spent(), cut_off=True)
    assert budget.stop(0) == (
        "the store of the project's budget failed, so that nothing more could be reserved: of "
        "budget.project_max_hours=1 this job had no more than 0.5 hours: workers lived 0.5, 0 are "
        "kept for them to leave in order"
    )
    budget.allowance = Allowance(caps=hours, limit=Spent(ns=HOUR // 2), most=Spent())
    assert budget.stop(0) == (
        "budget.project_max_hours=1 leaves this job no more than 0.5 hours: workers lived 0.5, 0 "
        "are kept for them to leave in order"
    )


def records(place: Path | Store, project: str = "shop", currency: str = "USD") -> ProjectRecords:
    store = place if isinstance(place, Store) else Store(str(place), ONCE)
    return ProjectRecords(store, project, currency)


def test_a_reservation_that_another_job_was_faster_with_is_made_anew_on_what_is_left(
    tmp_path: Path,
) -> None:
    faster = records(tmp_path)

    class Overtaken(Store):
        """Between the reading and the writing another job reserves."""

        raced = False

        def put_if_absent(self, key: str, data: bytes) -> None:
            if not self.raced:
                self.raced = True
                faster.change(lambda budget: reserve(budget, share("b", 80), CAPS))
            super().put_if_absent(key, data)

    found = records(Overtaken(str(tmp_path), ONCE)).change(
        lambda budget: reserve(budget, share("a", 50), CAPS)
    )
    assert found.number == 2
    assert found.shares == {"b": share("b", 80), "a": share("a", 20)}


def test_jobs_that_reserve_at_once_never_hold_more_than_the_cap(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def ask(name: str) -> None:
        mine = records(tmp_path)
        together.wait()
        for amount in range(1, 9):
            asked = share(name, 3 * amount)
            mine.change(partial(reserve, asked=asked, caps=CAPS))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, "abcdefgh"))
    found = records(tmp_path).read()
    assert found.used.nano == CAP
    assert len(list(walk(Store(str(tmp_path), ONCE), ""))) == found.number


def test_a_change_whose_reply_was_lost_is_made_once(tmp_path: Path) -> None:
    class LosesReplies(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            super().put_if_absent(key, data)
            raise CommitUnknown("the reply was lost")

    found = records(LosesReplies(str(tmp_path), ONCE)).change(
        lambda budget: reserve(budget, share("a", 50), CAPS)
    )
    assert found.number == 1
    assert records(tmp_path).read() == found


def test_a_store_in_which_others_are_always_faster_is_given_up_in_words(tmp_path: Path) -> None:
    other = records(tmp_path)

    class Overtaken(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            number = other.read().number + 1
            other.change(lambda budget: share("b", number))
            super().put_if_absent(key, data)

    with pytest.raises(StoreUnavailable, match=r"changed the project's budget 50 times in a row"):
        records(Overtaken(str(tmp_path), ONCE)).change(lambda budget: share("a", 1))


def test_many_changes_are_read_by_few_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_records, "_GROUP", 100)
    writer = records(tmp_path)
    for number in range(1, 256):
        found = share(f"job{number % 7}", number)
        writer.change(lambda budget, found=found: found)
    asked: list[str] = []

    class Counting(Store):
        def get(self, key: str) -> bytes | None:
            asked.append(key)
            return super().get(key)

    reader = records(Counting(str(tmp_path), ONCE))
    assert reader.read() == writer.read()
    assert len(asked) <= 64
    assert len(reader.read().shares) == 7
    assert len(asked) <= 64, "what is known is not read again"


def test_a_writer_that_was_killed_before_its_record_hides_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_records, "_GROUP", 10)
    writer = records(tmp_path)
    for number in range(1, 10):
        writer.change(lambda budget, number=number: share("a", number))
    (place,) = tmp_path.glob("shop-*")
    for empty in ("00001", "00002"):
        (place / empty).mkdir()
    assert records(tmp_path).read() == writer.read()
    after = records(tmp_path).change(lambda budget: share("b", 1))
    assert (after.number, set(after.shares)) == (10, {"a", "b"})
    assert records(tmp_path).read() == after


def test_projects_do_not_share_a_budget(tmp_path: Path) -> None:
    for project in ("a/b", "a b", ""):
        records(tmp_path, project).change(lambda budget: share("x", 1))
    assert records(tmp_path, "a/b").read().number == 1
    assert records(tmp_path, "other").read() == ProjectBudget()
    assert ProjectBudget().used == NOTHING


def test_a_budget_in_another_currency_is_refused(tmp_path: Path) -> None:
    records(tmp_path).change(lambda budget: share("a", 1))
    with pytest.raises(ConfigError) as caught:
        records(tmp_path, currency="EUR").read()
    assert str(caught.value) == (
        f"the budget of project 'shop' at {tmp_path} is in USD, this job in EUR; give it another "
        "budget.store, or a price book in that currency"
    )


@pytest.mark.parametrize("change", [{"number": 7}, {"share": {}}, {"kind": "Lease"}, None])
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, Any] | None) -> None:
    records(tmp_path).change(lambda budget: share("a", 1))
    (entry,) = walk(Store(str(tmp_path), ONCE), "")
    file = tmp_path / entry.key
    plain = json.loads(file.read_text())
    file.write_text("no JSON" if change is None else json.dumps({**plain, **change}))
    with pytest.raises(CorruptOutput) as caught:
        records(tmp_path).read()
    text = str(caught.value)
    assert text.startswith(f"{file} is damaged (")
    assert text.endswith("of the budget of project 'shop' is not known; begin a new budget.store")
