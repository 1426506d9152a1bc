"""What the driver knows, put to the question how many workers are wanted, and told to people."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.budget import Room
from cluster.coordinator import Counts
from cluster.crew import Member
from cluster.crew_size import START_S, CrewSize, Staffing
from cluster.driver_mark import read_mark
from cluster.nodes import Node, Shape
from cluster.ray_session import Resources
from cluster.sizing import Aim, Wish
from cluster.start_timeout import start_timeout
from jobs.crew_news import CrewNews
from jobs.presence import Presence
from jobs.status import status, status_lines
from tests.small_jobs import SmallJob, begin_run, prepare_small_job, small_config
from tests.snapshots import snapshot_of

ROWS, SHARDS = 3600, 100
FIXED = Resources(
    shape=Shape(gpus=1.0), least=1, most=None, per_node=None, workers=1, threads=1, grows=False
)
GROWING = replace(FIXED, grows=True)


def member(name: str, *, asked_s_ago: float) -> Member:
    asked_s = time.monotonic() - asked_s_ago
    return Member(name=name, node_id=None, actor=None, hello=None, end=name, hired_at_s=asked_s)


def sizer(
    tmp_path: Path, size: Resources, *, hours: float | None = None, **overrides: object
) -> CrewSize:
    deadline = None if hours is None else datetime.now(UTC) + timedelta(hours=hours)
    aim = Aim(rows=ROWS, deadline=deadline)
    return CrewSize(small_config(tmp_path, overrides), size, aim, SHARDS)


BEGUN = snapshot_of(shards=SHARDS, useful=SHARDS)


def test_on_a_fixed_cluster_as_many_are_wanted_as_there_are_and_fit(tmp_path: Path) -> None:
    there = [member("ada", asked_s_ago=1), member("bob", asked_s_ago=1)]
    found = sizer(tmp_path, FIXED).ask(BEGUN, there, room=3)
    assert (found.workers, found.why) == (5, "as many as fit")
    bounded = replace(FIXED, most=4)
    found = sizer(tmp_path, bounded, **{"cluster.max_workers": 4}).ask(BEGUN, there, room=3)
    assert (found.workers, found.why) == (4, "cluster.max_workers")


def test_an_autoscaler_is_asked_for_the_most_or_without_one_for_the_least(tmp_path: Path) -> None:
    bounded = replace(GROWING, most=8)
    assert sizer(tmp_path, bounded).ask(BEGUN, [], room=0).workers == 8
    found = sizer(tmp_path, replace(GROWING, least=2)).ask(BEGUN, [], room=0)
    assert (found.workers, found.why) == (2, "cluster.min_workers")
    assert sizer(tmp_path, replace(GROWING, least=2)).ask(BEGUN, [], room=5).workers == 5


@pytest.mark.parametrize("key", ["cluster.workers", "cluster.min_workers"])
def test_more_than_the_deadline_asks_for_are_wanted_by_the_key_that_was_given(
    tmp_path: Path, key: str
) -> None:
    fast = snapshot_of(shards=SHARDS, useful=SHARDS, rate=1000.0)
    size = replace(GROWING, least=2, most=2 if key == "cluster.workers" else 8)
    exact = {"cluster.workers": 2} if key == "cluster.workers" else {}
    found = sizer(tmp_path, size, hours=1, **exact).ask(fast, [], room=0)
    assert (found.workers, found.why) == (2, key)


def test_a_crew_that_is_still_to_come_is_expected_as_large_as_it_may_be() -> None:
    assert replace(GROWING, most=8).expected == 8
    assert (GROWING.expected, replace(FIXED, most=8).expected) == (1, 1)


@pytest.mark.parametrize(
    ("size", "cpus", "gpus", "threads"),
    [
        (replace(FIXED, threads=7), 64, 8, 7),
        (replace(GROWING, threads=None, most=50), 64, 8, 8),
        (replace(GROWING, threads=None, most=2), 64, 8, 32),
        (replace(GROWING, threads=None, most=50), 3, 1, 3),
        (replace(GROWING, threads=None, shape=Shape(gpus=0.0), most=4), 16, 0, 4),
        (replace(GROWING, threads=None, shape=Shape(gpus=0.0), per_node=1), 16, 0, 16),
        (replace(GROWING, threads=None, shape=Shape(gpus=0.0), most=50), 16, 0, 1),
        (replace(GROWING, threads=None), 2, 0, 2),
    ],
)
def test_a_worker_takes_its_share_of_the_node_that_it_lands_on_where_nodes_come_later(
    size: Resources, cpus: int, gpus: int, threads: int
) -> None:
    node = Node(node_id="n", cpus=cpus, gpus=gpus, free_cpus=0, free_gpus=0)
    assert size.threads_on(node) == threads


def test_those_who_are_being_taken_away_are_no_part_of_the_crew(tmp_path: Path) -> None:
    going = member("ada", asked_s_ago=1)
    going.leave_by_s = time.monotonic()
    assert sizer(tmp_path, FIXED).ask(BEGUN, [going], room=1).workers == 1


def test_a_run_that_stops_wants_nobody_and_says_why(tmp_path: Path) -> None:
    there = [member("ada", asked_s_ago=1)]
    bounded = replace(GROWING, most=8)
    found = sizer(tmp_path, bounded).ask(BEGUN, there, room=3, stopping="cancelled")
    assert (found.workers, found.keep, found.why) == (0, 0, "cancelled")


def test_a_deadline_is_reckoned_by_what_is_left_and_the_rate_so_far(tmp_path: Path) -> None:
    """3,600 rows of two images, a third of them done, at one a second and worker: 80 minutes."""
    crew_size = sizer(tmp_path, replace(GROWING, most=50), hours=1)
    assert crew_size.ask(BEGUN, [], room=0).why == "the deadline, until a rate is known"
    done = Counts(rows=1100, images=2200, quarantined=100)
    running = replace(BEGUN, counts=done, rate=1.0, made=2200)
    there = [member("ada", asked_s_ago=600)]
    found = crew_size.ask(running, there, room=0)
    assert (found.workers, found.why) == (2, "the deadline, at 1 images/s each")
    assert (
        crew_size.ask(replace(running, rate=0.1), there, room=0).workers == 25
    )  # each starts for 600 s


def test_how_long_a_start_takes_is_learnt_from_the_first_worker(tmp_path: Path) -> None:
    """Ten minutes are more than there is until a deadline in eight."""
    crew_size = sizer(tmp_path, replace(GROWING, most=50), hours=8 / 60)
    there = [member("ada", asked_s_ago=600)]
    slow = replace(BEGUN, rate=1.0)
    assert crew_size.ask(slow, there, room=0).needed is not None
    assert crew_size.ask(replace(slow, made=1), there, room=0).needed is None


def test_the_budget_counts_by_the_dearest_worker_seen(tmp_path: Path) -> None:
    each_s = START_S + 0 + 2 * 0.05
    pays_for_three = Room(nano=int(3.5 * 3600 * each_s))
    poor = replace(BEGUN, room=pays_for_three, dearest=3600 * 3600)
    found = sizer(tmp_path, replace(GROWING, most=8)).ask(poor, [], room=0)
    assert found.workers == 3
    assert found.why.startswith("what is left of the budget pays")
    unknown = replace(poor, dearest=None)
    assert sizer(tmp_path, replace(GROWING, most=8)).ask(unknown, [], room=0).workers == 8


@pytest.fixture
def small(tmp_path: Path) -> SmallJob:
    return prepare_small_job(tmp_path, [{"prompt": "a"}], **{"job.deadline": "1h"})


def presence(small: SmallJob) -> Presence:
    return Presence(small.config, begin_run(small.store), every_s=0.01)


WAITING = Staffing(wish=Wish(workers=8, keep=8, why="cluster.max_workers"), at_work=1, waiting=7)


def test_who_is_at_work_and_waited_for_is_said_once_and_told_by_status(
    small: SmallJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagemill")
    with presence(small) as shown:
        news = CrewNews(small.job, GROWING, shown)
        news.show(None)
        news.show(WAITING)
        news.show(WAITING)
        text = (
            "1 at work, 7 waiting for an autoscaler to add machines (each needs 1 CPU and 1 GPU); "
            "8 wanted: cluster.max_workers"
        )
        deadline_s = time.monotonic() + 30
        while (mark := read_mark(small.store, 1)) is None or mark.crew != text:
            assert time.monotonic() < deadline_s, mark
        lines = status_lines(status(small.store))
    assert caplog.messages == [f"workers: {text}"]
    assert f"workers    {text}" in lines
    assert any(line.startswith("deadline   2") and ": in 59 min" in line for line in lines)


def test_who_waits_for_the_first_machine_is_told_until_when_and_reminded(
    small: SmallJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagemill")
    for name in ("_LOOK_EVERY_S", "_SAY_EVERY_S", "_REMIND_EVERY_S"):
        monkeypatch.setattr(f"jobs.crew_news.{name}", 0.0)
    news = CrewNews(small.job, GROWING, presence(small))
    nobody = replace(WAITING, at_work=0, waiting=8)
    for staffing in (nobody, nobody, WAITING, WAITING):
        news.show(staffing)
    first, second = caplog.messages
    ends = "without any the run ends after 30 min 00 s (cluster.start_timeout_s)"
    assert "0 at work, 8 waiting for an autoscaler to add machines" in first
    assert f"; 8 wanted: cluster.max_workers; {ends}; nobody for 0 s" in first
    assert first.partition("; nobody")[0] == second.partition("; nobody")[0]


@pytest.mark.parametrize(
    ("given", "grows", "worker_s", "crew_s"),
    [(None, False, 120, 120), (None, True, 120, 1800), (5.0, False, 5, 5), (5.0, True, 5, 5)],
)
def test_machines_that_have_to_come_first_are_given_half_an_hour_unless_it_is_said(
    tmp_path: Path, given: float | None, grows: bool, worker_s: float, crew_s: float
) -> None:
    config = small_config(tmp_path, {"cluster.start_timeout_s": given})
    found = start_timeout(config.cluster, grows=grows)
    assert (found.worker_s, found.crew_s) == (worker_s, crew_s)


def late(needed: int | None) -> Staffing:
    wish = Wish(
        workers=2, keep=2, why="as many as fit", ends_in_s=7200.0, needed=needed, measured=True
    )
    return Staffing(wish=wish, at_work=2, waiting=0)


@pytest.mark.parametrize(
    ("needed", "told"),
    [(5, "about 5 workers would hold it"), (None, "no number of workers could hold it")],
)
def test_a_deadline_that_cannot_be_held_is_told_once_when_the_rate_has_said_so_thrice(
    small: SmallJob,
    needed: int | None,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("jobs.crew_news._LOOK_EVERY_S", 0.0)
    news = CrewNews(small.job, FIXED, presence(small))
    held = replace(late(needed), wish=replace(late(needed).wish, ends_in_s=60.0))
    guessed = replace(late(needed), wish=replace(late(needed).wish, measured=False))
    for staffing in (guessed, late(needed), late(needed), held, late(needed), late(needed)):
        news.show(staffing)
    assert [one for one in caplog.messages if "cannot be held" in one] == []
    news.show(guessed)
    for _ in range(4):
        news.show(late(needed))
    (warning,) = [one for one in caplog.messages if "cannot be held" in one]
    assert warning.startswith("job.deadline=2")
    assert "cannot be held with 2 workers (as many as fit): the end is expected about 2" in warning
    assert warning.endswith(f"too late; {told}; the run goes on")
    assert " 1 h 00 min too late" in warning


def test_without_a_deadline_on_a_fixed_cluster_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagemill")
    plain = prepare_small_job(tmp_path, [{"prompt": "a"}])
    CrewNews(plain.job, FIXED, presence(plain)).show(late(None))
    assert caplog.messages == []
