"""Batch sizes: the knee is found from the work itself, and remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.batch_size import FIRST_SLOTS, BatchSizes, Knee

SHAPE = (64, 64)
GPU = {1: 10.0, 4: 11.0, 8: 12.0, 16: 20.0, 32: 39.6, 64: 79.0}
"""Milliseconds of a step by passes: flat while the device has room, in proportion beyond 16."""


def cost_of(steps, passes):
    size = min((size for size in steps if size >= passes), default=max(steps))
    return steps[size] * max(1.0, passes / size)


def search(knee, steps, *, ticks=200, passes=1, disturb=lambda tick: 1.0):
    """Run full ticks; returns the sizes that were used, in order."""
    used = []
    for tick in range(ticks):
        used.append(knee.slots)
        rows = knee.slots
        spent = cost_of(steps, rows * passes) * disturb(tick) * 1e6
        knee.observe(rows=rows, passes=rows * passes, spent_ns=int(spent))
    return list(dict.fromkeys(used))


def new_knee(*, most=64, may_double=lambda: True):
    return Knee(most=most, may_double=may_double)


def test_slots_double_until_more_of_them_bring_nothing():
    knee = new_knee()
    used = search(knee, GPU)
    assert used[:3] == [4, 8, 16]
    assert (knee.slots, knee.settled) == (16, True)
    # 64 was tried since 32 was the cheapest by a hair; it is not worth its memory
    assert max(used) == 64


def test_one_size_that_looks_bad_does_not_end_the_search():
    knee = new_knee()
    search(knee, GPU, disturb=lambda tick: 3.0 if 4 <= tick < 8 else 1.0)
    assert knee.slots == 16


def test_the_first_step_of_a_size_is_a_warm_up():
    knee = new_knee()
    search(knee, GPU, disturb=lambda tick: 50.0 if tick % 4 == 0 else 1.0)
    assert knee.slots == 16


def test_a_batch_that_only_costs_more_stays_small():
    knee = new_knee()
    search(knee, {1: 10.0, 4: 30.0, 8: 80.0, 16: 200.0, 32: 500.0})
    assert knee.slots == 4


def test_guided_rows_count_as_two_passes():
    knee = new_knee()
    search(knee, GPU, passes=2)
    assert knee.slots == 8


def test_steps_that_are_not_full_tell_nothing():
    knee = new_knee()
    for _ in range(50):
        knee.observe(rows=3, passes=3, spent_ns=10**6)
    assert (knee.slots, knee.settled) == (FIRST_SLOTS, False)


def test_memory_bounds_the_search():
    knee = new_knee(may_double=lambda: False)
    assert search(knee, GPU) == [4]
    assert knee.settled


def test_a_size_that_did_not_fit_is_left_for_the_best_one_that_did():
    knee = new_knee()
    while knee.slots < 16:
        knee.observe(rows=knee.slots, passes=knee.slots, spent_ns=int(cost_of(GPU, knee.slots)))
    knee.too_many(rows=16)
    assert (knee.slots, knee.settled) == (8, True)


def test_no_size_at_all_that_fits_is_half_of_the_first():
    knee = new_knee()
    knee.too_many(rows=FIRST_SLOTS)
    assert (knee.slots, knee.settled) == (FIRST_SLOTS // 2, True)


@given(
    st.dictionaries(st.sampled_from([4, 8, 16, 32, 64]), st.floats(0.1, 1e4), min_size=5),
    st.integers(1, 64),
)
def test_whatever_the_times_the_search_ends_within_its_bound(steps, most):
    knee = new_knee(most=most)
    used = search(knee, steps)
    assert knee.settled
    assert 1 <= knee.slots <= max(used) <= most


def test_what_was_found_is_told_once_and_used_at_once_by_the_next_run():
    kept = {}
    told = []

    def found(shape, slots):
        kept[shape] = slots
        told.append(shape)

    def new_sizes():
        return BatchSizes(most=64, may_double=lambda: True, first=kept.get, found=found)

    sizes = new_sizes()
    for _ in range(100):
        rows = sizes.slots(SHAPE)
        spent_ns = int(cost_of(GPU, rows) * 1e6)
        sizes.observe(SHAPE, rows=rows, passes=rows, spent_ns=spent_ns)
    assert told == [SHAPE]
    assert new_sizes().slots(SHAPE) == sizes.slots(SHAPE) == 16
    assert new_sizes().slots((128, 128)) == FIRST_SLOTS


def test_a_remembered_size_that_does_not_fit_is_halved_and_told_until_it_does():
    told = []
    sizes = BatchSizes(
        most=64,
        may_double=lambda: True,
        first=lambda _: 16,
        found=lambda _, slots: told.append(slots),
    )
    sizes.too_many(SHAPE, rows=16)
    assert (sizes.slots(SHAPE), told) == (8, [8])
    sizes.too_many(SHAPE, rows=16)
    assert (sizes.slots(SHAPE), told) == (8, [8]), "that batch began before"
    for _ in range(5):
        sizes.too_many(SHAPE, rows=1)
    assert (sizes.slots(SHAPE), told) == (1, [8, 4, 2, 1])


def test_a_size_that_was_found_and_does_not_fit_any_more_is_halved():
    knee = new_knee()
    search(knee, GPU)
    knee.too_many(rows=16)
    assert (knee.slots, knee.settled) == (8, True)


def test_a_remembered_size_never_exceeds_the_bound():
    sizes = BatchSizes(most=8, may_double=lambda: True, first=lambda _: 64, found=lambda *_: None)
    assert sizes.slots(SHAPE) == 8


def test_only_so_many_shapes_are_kept_in_mind():
    sizes = BatchSizes(
        most=64, may_double=lambda: True, first=lambda _: None, found=lambda *_: None
    )
    for side in range(10_000):
        sizes.slots((side, side))
    assert len(sizes._knees) <= 256
