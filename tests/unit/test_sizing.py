"""How many workers are wanted: what changes it, and in which direction."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.sizing import Due, Left, Means, Question, Wish, wish

HOUR_S = 3600.0
EUR = 10**9
CALM = Question(
    left=Left(images=36_000.0, shard_images=100.0, useful=360),
    means=Means(),
    due=None,
    ready_s=(),
    start_s=60.0,
    least=1,
    most=50,
    most_why="cluster.max_workers",
)
"""36,000 images: ten hours for one worker that makes one a second."""


def due(hours: float, rate: float | None = 1.0, *, given: float | None = None) -> Due:
    given_s = (hours if given is None else given) * HOUR_S
    return Due(left_s=hours * HOUR_S, given_s=given_s, rate=rate)


def ask(question: Question = CALM, **changes: object) -> Wish:
    return wish(replace(question, **changes))  # type: ignore[arg-type]


def test_without_a_deadline_as_many_are_wanted_as_there_may_be() -> None:
    found = ask()
    assert (found.workers, found.why) == (50, "cluster.max_workers")
    assert (found.ends_in_s, found.needed) == (None, None)


def test_there_are_never_more_than_there_are_shards_to_lease() -> None:
    found = ask(left=replace(CALM.left, useful=3))
    assert (found.workers, found.keep, found.why) == (3, 3, "no more shards are left to lease")


def test_a_deadline_asks_for_the_fewest_that_hold_it_with_a_tenth_of_the_time_to_spare() -> None:
    """Of 2 h, 12 min are kept back, a worker starts for 1 min and the last shard takes 100 s:
    6,320 s for each of those that share the other 35,900 s of work."""
    found = ask(due=due(2))
    assert (found.workers, found.needed) == (6, 6)
    assert found.why == "the deadline, at 1 images/s each"
    assert found.ends_in_s == 36_000 / 6 + 60
    assert ask(due=due(2), left=replace(CALM.left, images=6 * 6_320 + 100 + 1)).workers == 7


def test_a_worker_that_is_ready_does_more_until_the_deadline_than_one_that_is_asked_for() -> None:
    there = ask(due=due(2), start_s=3_000.0, ready_s=(0.0,) * 6)
    assert there.workers == 6
    assert ask(due=due(2), start_s=3_000.0, ready_s=(3_000.0,) * 6).workers == 11
    assert ask(due=due(2), start_s=3_000.0).workers == 11


def test_before_a_rate_is_known_the_least_start() -> None:
    found = ask(due=due(2, rate=None), least=2)
    assert (found.workers, found.keep) == (2, 2)
    assert found.why == "the deadline, until a rate is known"
    assert (found.ends_in_s, found.needed) == (None, None)


def test_a_rate_that_stays_unknown_for_a_tenth_of_the_time_has_all_of_them_start() -> None:
    assert ask(due=due(1.81, rate=None, given=2)).workers == 1
    assert ask(due=due(1.79, rate=None, given=2)).workers == 50


def test_a_remembered_rate_is_named_as_such() -> None:
    remembered = replace(due(2), measured=False)
    assert ask(due=remembered).why.endswith("each, as remembered of earlier runs")
    assert [ask(due=one).measured for one in (None, due(2, None), remembered, due(2))] == [
        *(False, False, False),
        True,
    ]


def test_a_deadline_that_cannot_be_held_asks_for_all_and_tells_how_many_it_would_take() -> None:
    found = ask(due=due(0.2))
    assert (found.workers, found.needed, found.why) == (50, 74, "cluster.max_workers")
    assert found.ends_in_s == 36_000 / 50 + 60


def test_a_deadline_nearer_than_a_start_and_a_shard_is_held_by_no_number() -> None:
    found = ask(due=due(0.04))
    assert (found.workers, found.needed) == (50, None)
    passed = ask(due=due(-1, given=1))
    assert (passed.workers, passed.needed) == (50, None)


def test_no_more_are_wanted_than_the_budget_lets_start_and_commit() -> None:
    means = Means(nano=10 * EUR, nano_per_hour=6 * EUR, each_s=600.0)  # each is one unit
    found = ask(means=means)
    assert found.workers == 10
    assert found.why == "what is left of the budget pays the start and a commit of no more"
    assert ask(means=replace(means, nano=10 * EUR - 1)).workers == 9
    assert ask(means=Means(ns=4 * 600 * 10**9, each_s=600.0)).workers == 4
    assert ask(means=replace(means, ns=4 * 600 * 10**9)).workers == 4
    assert ask(means=replace(means, nano_per_hour=None)).workers == 50


def test_the_least_are_wanted_whatever_is_left_of_the_budget_but_not_without_work() -> None:
    broke = Means(ns=-5, each_s=600.0)
    assert ask(means=broke, least=2) == Wish(workers=2, keep=2, why="cluster.min_workers")
    assert ask(means=broke, least=2, left=replace(CALM.left, useful=1)).workers == 1
    assert ask(left=replace(CALM.left, useful=0)).workers == 0


def test_who_waits_is_kept_where_twice_the_margin_would_need_it() -> None:
    found = ask(due=due(2), left=replace(CALM.left, images=6 * 6_320 + 100))
    assert (found.workers, found.keep) == (6, 7)


questions = st.builds(
    Question,
    left=st.builds(
        Left,
        images=st.floats(0, 1e7),
        shard_images=st.floats(0, 1e4),
        useful=st.integers(0, 300),
    ),
    means=st.builds(
        Means,
        nano=st.none() | st.integers(-EUR, 100 * EUR),
        ns=st.none() | st.integers(-(10**9), 10**15),
        nano_per_hour=st.none() | st.integers(1, 10 * EUR),
        each_s=st.floats(0, 1e4),
    ),
    due=st.none()
    | st.builds(
        Due,
        left_s=st.floats(-1e4, 1e6),
        given_s=st.floats(0, 1e6),
        rate=st.none() | st.floats(1e-3, 1e3),
    ),
    ready_s=st.lists(st.floats(0, 1e3), max_size=20),
    start_s=st.floats(0, 1e3),
    least=st.integers(1, 20),
    most=st.integers(1, 200),
    most_why=st.just("cluster.max_workers"),
)


@given(questions)
def test_the_bounds_hold_whatever_is_asked(asked: Question) -> None:
    found = wish(asked)
    least = min(asked.least, asked.left.useful)
    assert least <= found.workers <= max(least, min(asked.most, asked.left.useful))
    assert found.workers <= found.keep <= max(found.workers, asked.most, least)
    affordable = asked.means.workers
    assert affordable is None or found.workers <= max(least, affordable)
    assert found.why
    assert found.ends_in_s is None or found.ends_in_s >= 0


@given(questions, st.floats(0, 1e6))
def test_more_time_never_asks_for_more_workers(asked: Question, more_s: float) -> None:
    if asked.due is not None:
        later = replace(asked, due=replace(asked.due, left_s=asked.due.left_s + more_s))
        assert wish(later).workers <= wish(asked).workers


@given(questions, st.integers(0, 100 * EUR))
def test_more_money_or_hours_never_ask_for_fewer_workers(asked: Question, more: int) -> None:
    means = asked.means
    richer = replace(
        means,
        nano=None if means.nano is None else means.nano + more,
        ns=None if means.ns is None else means.ns + more,
    )
    assert wish(replace(asked, means=richer)).workers >= wish(asked).workers


@given(questions, st.floats(0, 1e7), st.integers(0, 100))
def test_more_work_never_asks_for_fewer_workers(
    asked: Question, images: float, shards: int
) -> None:
    left = replace(asked.left, images=asked.left.images + images, useful=asked.left.useful + shards)
    assert wish(replace(asked, left=left)).workers >= wish(asked).workers


@given(questions)
def test_a_number_that_is_said_to_hold_the_deadline_ends_before_it(asked: Question) -> None:
    found = wish(asked)
    if asked.due is not None and found.needed is not None and found.needed <= found.workers:
        assert found.ends_in_s is not None
        shard_s = asked.left.shard_images / (asked.due.rate or 1)
        one_shard = asked.left.images <= asked.left.shard_images
        assert one_shard or found.ends_in_s <= asked.due.left_s + 1e-6 * shard_s
