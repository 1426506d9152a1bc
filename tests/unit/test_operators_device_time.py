"""Device time is split to the last nanosecond."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.device_time import DeviceMeter, HostClock, split_exactly


@dataclass
class Row:
    device_ns: int = 0


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_parts_sum_to_the_whole_and_are_fair(total, weights):
    if not sum(weights):
        with pytest.raises(ValueError, match="cannot split"):
            split_exactly(total, weights)
        return
    parts = split_exactly(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        exact = total * weight // sum(weights)
        assert exact <= part <= exact + 1


def test_the_largest_remainder_gets_the_rest():
    assert split_exactly(10, [1, 1, 1]) == [4, 3, 3]
    assert split_exactly(10, [2, 1, 1]) == [5, 3, 2]
    assert split_exactly(2, [1, 1, 1]) == [1, 1, 0]
    assert split_exactly(7, [0, 5]) == [0, 7]


def test_a_lap_without_participants_belongs_to_the_next_one():
    times = iter([100, 130, 145])
    meter = DeviceMeter(HostClock(lambda: next(times)))
    first, second = Row(), Row()
    meter.start()
    meter.lap([])
    meter.lap([(first, 2), (second, 1)])
    meter.lap([(second, 1)])
    assert (first.device_ns, second.device_ns) == (20, 25)
    assert meter.busy_ns == 45
