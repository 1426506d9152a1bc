"""Amounts are integers that add up, whatever is split or rounded."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from shard_records import PRICE

from cluster.money import (
    as_decimal,
    bill,
    charge,
    close_worker,
    microseconds,
    split,
)
from cluster.price import Price
from cluster.records import Stamp
from cluster.traffic import Requests

NANO = 10**9
HOUR_NS = 3600 * NANO


def price(nano_per_hour: int) -> Price:
    return dataclasses.replace(PRICE, nano_per_hour=nano_per_hour)


def stamp(lifetime_ns: int, busy_ns: int, overhead_ns: int, at: Price) -> Stamp:
    return Stamp(
        worker="w1",
        seq=0,
        run=1,
        node="here",
        gpus="",
        price=at,
        started_at="2026-01-01T00:00:00+00:00",
        lifetime_ns=lifetime_ns,
        busy_ns=busy_ns,
        overhead_ns=overhead_ns,
        requests=Requests(),
        ticks=0,
        occupied=0,
        offered=0,
        other_shapes=0,
        starved=0,
        closed=True,
        alive_ns=None,
        estimated_ns=0,
    )


@given(total=st.integers(0, 10**18), weights=st.lists(st.integers(0, 10**15), min_size=1))
def test_split_sums_exactly_and_never_below_zero(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert len(parts) == len(weights)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)


@given(total=st.integers(0, 10**18), weights=st.lists(st.integers(0, 10**15), min_size=1))
def test_split_gives_each_its_share_up_to_one_unit(total: int, weights: list[int]) -> None:
    whole = sum(weights)
    if whole:
        for part, weight in zip(split(total, weights), weights, strict=True):
            assert 0 <= part - total * weight // whole <= 1


def test_split_gives_the_odd_unit_to_the_largest_remainder() -> None:
    assert split(10, [1, 1, 1]) == [4, 3, 3]
    assert split(5, [2, 2, 6]) == [1, 1, 3]
    assert split(7, [0, 0]) == [0, 7]
    assert split(0, [3, 4]) == [0, 0]


@settings(max_examples=300)
@given(
    nano_per_hour=st.integers(0, 100 * NANO),
    images=st.lists(st.integers(0, HOUR_NS), max_size=30),
    wasted=st.integers(0, HOUR_NS),
    overhead=st.integers(0, HOUR_NS),
    idle=st.integers(0, HOUR_NS),
)
def test_images_and_the_other_lines_sum_exactly_to_the_bill(
    nano_per_hour: int, images: list[int], wasted: int, overhead: int, idle: int
) -> None:
    at = price(nano_per_hour)
    used = sum(images)
    lifetime = stamp(used + wasted + overhead + idle, used + wasted, overhead, at)
    amounts = [charge(at, device_ns) or 0 for device_ns in images]
    lines = close_worker(lifetime, used_ns=used, used_amount=sum(amounts))
    assert [line.kind for line in lines] == ["wasted", "overhead", "idle"]
    assert [line.device_ns for line in lines] == [wasted, overhead, idle]
    parts = [line.amount_nano for line in lines if line.amount_nano is not None]
    assert len(parts) == 3
    assert min(parts) >= 0
    assert sum(amounts) + sum(parts) == bill(at, lifetime.lifetime_ns)


@given(
    lifetime=st.integers(0, HOUR_NS),
    busy=st.integers(0, HOUR_NS),
    overhead=st.integers(0, HOUR_NS),
    used=st.integers(0, HOUR_NS),
)
def test_stamps_that_contradict_each_other_still_give_lines_that_sum(
    lifetime: int, busy: int, overhead: int, used: int
) -> None:
    """A stamp older than the newest commit knows less than the commit; nothing turns negative."""
    at = price(NANO)
    paid = charge(at, used) or 0
    lines = close_worker(stamp(lifetime, busy, overhead, at), used_ns=used, used_amount=paid)
    covered = used + sum(line.device_ns for line in lines)
    assert all(line.device_ns >= 0 and (line.amount_nano or 0) >= 0 for line in lines)
    assert covered >= lifetime
    assert paid + sum(line.amount_nano or 0 for line in lines) == bill(at, covered)


@given(parts=st.lists(st.integers(0, HOUR_NS), max_size=20), nano=st.integers(0, 100 * NANO))
def test_parts_never_cost_more_than_the_whole(parts: list[int], nano: int) -> None:
    whole = bill(price(nano), sum(parts))
    assert whole is not None
    assert sum(charge(price(nano), p) or 0 for p in parts) <= whole


def test_an_hour_costs_the_price_of_an_hour() -> None:
    at = price(1_006_000_000)
    assert bill(at, HOUR_NS) == charge(at, HOUR_NS) == 1_006_000_000
    assert bill(at, HOUR_NS // 2) == 503_000_000
    assert as_decimal(bill(at, HOUR_NS)) == Decimal("1.006")
    assert str(as_decimal(1)) == "1E-9"
    assert f"{as_decimal(1):f}" == "0.000000001"


def test_a_price_of_nothing_costs_nothing() -> None:
    at = price(0)
    lines = close_worker(stamp(HOUR_NS, 0, 0, at), used_ns=0, used_amount=0)
    assert [line.amount_nano for line in lines] == [0, 0, 0]


def test_what_has_no_price_has_no_amount_and_all_of_its_time() -> None:
    at = dataclasses.replace(price(0), nano_per_hour=None, unpriced="nobody knows")
    assert (charge(at, HOUR_NS), bill(at, HOUR_NS)) == (None, None)
    lines = close_worker(stamp(10, 6, 3, at), used_ns=5, used_amount=0)
    assert [line.device_ns for line in lines] == [1, 3, 1]
    assert [line.amount_nano for line in lines] == [None] * 3


def test_a_time_is_microseconds_since_the_epoch_whatever_its_zone() -> None:
    assert microseconds("1970-01-01T00:00:01.5+00:00") == 1_500_000
    assert microseconds("1970-01-01T02:00:00.000001+02:00") == 1
