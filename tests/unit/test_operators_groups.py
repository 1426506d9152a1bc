"""Which waiting items share the next call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.groups import Groups


def filled(*keys, max_batch=3, patience_calls=32):
    groups = Groups(max_batch=max_batch, patience_calls=patience_calls)
    for number, key in enumerate(keys):
        groups.add(key, f"{key}{number}")
    return groups


def test_the_group_that_fills_a_call_best_goes_first():
    groups = filled("a", "b", "b", "c", "b")
    assert groups.take() == ["b1", "b2", "b4"]
    assert groups.take() == ["a0"]


def test_more_than_fills_a_call_counts_no_more_than_full():
    groups = filled("a", "a", "b", "b", "b", max_batch=2)
    assert [groups.take() for _ in range(3)] == [["a0", "a1"], ["b2", "b3"], ["b4"]]


def test_whatever_waits_for_too_long_goes_first():
    groups = filled("rare", patience_calls=2)
    calls = []
    for _ in range(5):
        for _ in range(3):
            groups.add("often", "often")
        calls.append(groups.take())
    assert calls == [["often"] * 3] * 3 + [["rare0"]] + [["often"] * 3]


def test_unwanted_items_are_dropped_and_counted():
    groups = filled("a", "b", "a")
    assert groups.remove(lambda item: item in ("a0", "b1")) == 2
    assert list(groups) == ["a2"]
    assert (len(groups), groups.room) == (1, 17)
    assert groups.remove(lambda item: True) == 1
    assert groups.take() == []


@given(st.lists(st.sampled_from("abcd")), st.integers(1, 4), st.integers(0, 3))
def test_each_item_is_taken_once_with_its_like(keys, max_batch, patience):
    groups = filled(*keys, max_batch=max_batch, patience_calls=patience)
    calls = []
    while len(groups):
        calls.append(groups.take())
    assert sorted(item for call in calls for item in call) == sorted(
        f"{key}{number}" for number, key in enumerate(keys)
    )
    assert all(len({item[0] for item in call}) == 1 and len(call) <= max_batch for call in calls)
