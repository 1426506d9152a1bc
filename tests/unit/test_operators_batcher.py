"""The batcher's promises, for any arrivals: nothing lost, slots full, nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batcher import Batcher

SMALL, LARGE = (64, 64), (128, 128)


def run(batcher, rows, *, on_tick=lambda plan: None):
    """Tick until empty; returns the order in which numbers finished. ``rows``: number -> steps."""
    left = dict(rows)
    finished = []
    while (plan := batcher.next_tick()) is not None:
        on_tick(plan)
        for number in plan.rows:
            left[number] -= 1
        done = [number for number in plan.rows if left[number] == 0]
        batcher.remove(done)
        finished += done
    return finished


def test_an_empty_batcher_has_no_tick():
    batcher = Batcher(max_batch=4)
    assert batcher.next_tick() is None
    assert (batcher.room, batcher.inside, batcher.active) == (24, 0, 0)


def test_the_fullest_bucket_runs_and_keeps_running_on_a_tie():
    batcher = Batcher(max_batch=4)
    batcher.add(1, shape=SMALL, steps=5)
    for number in (2, 3):
        batcher.add(number, shape=LARGE, steps=5)
    assert batcher.next_tick().shape == LARGE
    batcher.add(4, shape=SMALL, steps=5)
    assert batcher.next_tick().shape == LARGE
    batcher.add(5, shape=SMALL, steps=5)
    assert batcher.next_tick().shape == SMALL


def test_rows_keep_their_slot_while_another_bucket_runs():
    batcher = Batcher(max_batch=2)
    batcher.add(1, shape=SMALL, steps=5)
    assert batcher.next_tick().rows == (1,)
    for number in (2, 3):
        batcher.add(number, shape=LARGE, steps=1)
    assert batcher.next_tick().rows == (2, 3)
    assert batcher.active == 3
    batcher.remove([2, 3])
    plan = batcher.next_tick()
    assert (plan.rows, plan.entering) == ((1,), ())


def test_longest_rows_enter_first_so_that_the_tail_is_short():
    batcher = Batcher(max_batch=2)
    rows = {1: 2, 2: 2, 3: 2, 4: 2, 5: 8}
    for number, steps in rows.items():
        batcher.add(number, shape=SMALL, steps=steps)
    ticks = []
    run(batcher, rows, on_tick=ticks.append)
    assert 5 in ticks[0].entering
    assert len(ticks) == 8


def test_a_short_row_is_not_passed_over_for_ever():
    batcher = Batcher(max_batch=1, patience_ticks=20)
    batcher.add(0, shape=SMALL, steps=1)
    left = {0: 1}
    for number in range(1, 100):
        batcher.add(number, shape=SMALL, steps=5)
        left[number] = 5
        for _ in range(5):
            plan = batcher.next_tick()
            for row in plan.rows:
                left[row] -= 1
            batcher.remove([row for row in plan.rows if left[row] == 0])
            if left[0] == 0:
                assert number <= 8
                return
    raise AssertionError("the short row starved")


def test_a_small_bucket_is_not_passed_over_for_ever():
    batcher = Batcher(max_batch=2, patience_ticks=10)
    batcher.add(0, shape=LARGE, steps=3)
    left = {0: 3}
    waited = 0
    for number in range(1, 1000):
        while len([n for n in left if n and left[n]]) < 4:
            new = max(left) + 1
            batcher.add(new, shape=SMALL, steps=4)
            left[new] = 4
        plan = batcher.next_tick()
        for row in plan.rows:
            left[row] -= 1
        batcher.remove([row for row in plan.rows if left[row] == 0])
        waited = number
        if left[0] == 0:
            break
    assert left[0] == 0
    assert waited <= 20


def test_room_counts_what_is_inside():
    batcher = Batcher(max_batch=2, lookahead=3)
    for number in range(4):
        batcher.add(number, shape=SMALL, steps=1)
    assert batcher.room == 0
    batcher.remove([0, 1])
    assert batcher.room == 1


def test_a_number_cannot_be_inside_twice():
    batcher = Batcher(max_batch=2)
    batcher.add(1, shape=SMALL, steps=1)
    with pytest.raises(ValueError, match="row 1"):
        batcher.add(1, shape=LARGE, steps=1)


def test_next_waiting_tells_who_enters_next():
    batcher = Batcher(max_batch=1)
    for number, steps in ((1, 2), (2, 9), (3, 5)):
        batcher.add(number, shape=SMALL, steps=steps)
    assert batcher.next_tick().entering == (2,)
    assert batcher.next_waiting(SMALL, 5) == (3, 1)
    assert batcher.next_waiting(LARGE, 5) == ()


ROWS = st.lists(
    st.tuples(st.sampled_from([SMALL, LARGE, (64, 128)]), st.integers(1, 12), st.booleans()),
    max_size=40,
)


@settings(deadline=None)
@given(rows=ROWS, max_batch=st.integers(1, 5), patience=st.integers(0, 30))
def test_every_row_gets_exactly_its_steps(rows, max_batch, patience):
    batcher = Batcher(max_batch=max_batch, patience_ticks=patience)
    shapes = {}
    left = {}
    waiting = list(enumerate(rows))
    ran = dict.fromkeys(range(len(rows)), 0)
    while waiting or batcher.inside:
        while waiting and batcher.room:
            number, (shape, steps, _) = waiting.pop(0)
            batcher.add(number, shape=shape, steps=steps)
            shapes[number], left[number] = shape, steps
        held = sum(shapes[n] == SMALL for n in left)
        plan = batcher.next_tick()
        assert plan is not None
        assert 1 <= len(plan.rows) <= max_batch
        assert len(set(plan.rows)) == len(plan.rows)
        assert set(plan.entering) <= set(plan.rows)
        assert all(shapes[number] == plan.shape for number in plan.rows)
        mine = [number for number in left if shapes[number] == plan.shape]
        assert len(plan.rows) == min(max_batch, len(mine)), held
        for number in plan.rows:
            left[number] -= 1
            ran[number] += 1
        done = [number for number in plan.rows if not left[number]]
        batcher.remove(done)
        for number in done:
            del left[number]
    assert all(ran[number] == steps for number, (_, steps, _) in enumerate(rows))


@settings(deadline=None)
@given(rows=ROWS, max_batch=st.integers(1, 5), ticks=st.integers(0, 10))
def test_removing_at_any_moment_leaves_nothing_behind(rows, max_batch, ticks):
    batcher = Batcher(max_batch=max_batch)
    for number, (shape, _, _) in enumerate(rows):
        batcher.add(number, shape=shape, steps=99)
    for _ in range(ticks):
        batcher.next_tick()
    unwanted = {number for number, (_, _, drop) in enumerate(rows) if drop}
    batcher.remove(unwanted)
    assert batcher.inside == len(rows) - len(unwanted)
    seen = set()
    while (plan := batcher.next_tick()) is not None:
        seen |= set(plan.rows)
        batcher.remove(plan.rows)
    assert seen == set(range(len(rows))) - unwanted
    assert (batcher.inside, batcher.active) == (0, 0)


def test_a_bucket_can_have_more_or_fewer_slots_than_the_others():
    batcher = Batcher(max_batch=2)
    for number in range(8):
        batcher.add(number, shape=SMALL, steps=9)
    batcher.resize(SMALL, 4)
    assert len(batcher.next_tick().rows) == 4
    batcher.resize(SMALL, 3)
    plan = batcher.next_tick()
    assert (len(plan.rows), plan.slots) == (4, 4)
    batcher.remove(plan.rows[:2])
    plan = batcher.next_tick()
    assert (len(plan.rows), len(plan.entering), plan.slots) == (3, 1, 3)


def test_a_bucket_is_full_by_its_own_slots():
    batcher = Batcher(max_batch=4)
    for number in range(3):
        batcher.add(number, shape=SMALL, steps=9)
    for number in (3, 4):
        batcher.add(number, shape=LARGE, steps=9)
    batcher.resize(LARGE, 2)
    assert batcher.next_tick().shape == LARGE


def test_a_shape_whose_last_row_left_is_forgotten():
    batcher = Batcher(max_batch=4)
    batcher.add(1, shape=SMALL, steps=1)
    batcher.resize(SMALL, 64)
    assert (batcher.slots(SMALL), batcher.room) == (64, 6 * 64 - 1)
    batcher.remove([1])
    assert (batcher.slots(SMALL), batcher.room, batcher.holds(SMALL)) == (4, 24, False)


def test_a_tick_says_whether_rows_of_other_shapes_wait():
    batcher = Batcher(max_batch=1)
    batcher.add(1, shape=SMALL, steps=9)
    batcher.add(2, shape=SMALL, steps=9)
    assert not batcher.next_tick().others
    batcher.add(3, shape=LARGE, steps=9)
    assert batcher.next_tick().others
