"""Which server gets the next request, how long one rests, how many requests fill its batches."""

from __future__ import annotations

from random import Random

import pytest

from operators.triton_client.concurrency import BatchHistogram, InFlightSearch
from operators.triton_client.endpoints import (
    LONGEST_PAUSE_S,
    Endpoint,
    choose,
    pause_s,
    rest_s,
)


def endpoint(name: str, limit: int = 4) -> Endpoint:
    return Endpoint(name=name, limit=limit)


def test_the_server_with_the_smallest_part_of_its_limit_taken_gets_the_next_request() -> None:
    small, large = endpoint("small", 2), endpoint("large", 8)
    given = []
    for _ in range(10):
        found = choose([small, large], 0.0, alone=False)
        assert found is not None
        found.in_flight += 1
        given.append(found.name)
    assert (given.count("small"), given.count("large")) == (2, 8)
    assert choose([small, large], 0.0, alone=False) is None


def test_a_server_that_failed_gets_nothing_until_it_is_heard() -> None:
    one, other = endpoint("one"), endpoint("other")
    one.failed(5.0)
    one.failed(7.0)
    assert choose([one, other], 7.0, alone=False) is other
    assert one.useless_s(8.0) == 3.0
    other.failed(7.5)
    assert choose([one, other], 8.0, alone=False) is None
    one.heard(9.0)
    assert choose([one, other], 9.0, alone=False) is one
    assert one.useless_s(99.0) == 0.0


def test_a_busy_server_rests_longer_each_time_it_refuses_and_no_longer_once_it_is_heard() -> None:
    one, random = endpoint("one"), Random(0)
    one.refused(0.0, random)
    first_s = rest_s([one], 0.0)
    assert first_s is not None
    assert 0.1 <= first_s <= 0.2
    assert choose([one], 0.0, alone=False) is None
    assert choose([one], first_s, alone=False) is one
    for _ in range(8):
        one.refused(1.0, random)
    last_s = rest_s([one], 1.0)
    assert last_s is not None
    assert LONGEST_PAUSE_S / 2 <= last_s <= LONGEST_PAUSE_S
    assert one.useless_s(11.0) == 11.0
    one.in_flight = 1
    assert one.useless_s(11.0) == 0.0, "it is making something for us"
    one.heard(11.0)
    one.in_flight = 0
    assert one.useless_s(20.0) == 0.0


def test_a_request_that_may_kill_a_model_shares_its_server_with_no_other() -> None:
    one, other = endpoint("one"), endpoint("other")
    one.in_flight = other.in_flight = 1
    assert choose([one, other], 0.0, alone=True) is None
    other.in_flight = 0
    assert choose([one, other], 0.0, alone=True) is other
    other.in_flight, other.alone = 1, True
    assert choose([other], 0.0, alone=False) is None


@pytest.mark.parametrize("failures", [0, 3, 10_000])
def test_pauses_differ_between_clients_and_end(failures: int) -> None:
    random = Random(failures)
    pauses = {pause_s(failures, random) for _ in range(50)}
    assert len(pauses) == 50
    assert 0 < min(pauses) <= max(pauses) <= LONGEST_PAUSE_S


def test_more_requests_are_asked_at_a_time_while_that_fills_the_batches() -> None:
    search = InFlightSearch(max_batch=8, instances=1)
    assert search.limit == 16
    assert not search.wants_to_know(reached=False), "rows are lacking, not requests"
    assert search.wants_to_know(reached=True)
    assert [search.observe(mean) for mean in (4.0, 5.0, 6.0)] == [20, 24, 28]
    assert search.observe(6.11) == 24, "the last step gained nothing"


@pytest.mark.parametrize(
    ("mean", "looks"), [(7.7, 30), (1.0, 30), (None, 10)], ids=["full", "no gain", "refused"]
)
def test_a_server_is_not_asked_for_its_batches_for_a_while_once_the_number_is_found(
    mean: float | None, looks: int
) -> None:
    search = InFlightSearch(max_batch=8, instances=1)
    search.observe(1.0)
    found = search.refused() if mean is None else search.observe(mean)
    assert [search.wants_to_know(reached=True) for _ in range(looks + 1)] == [False] * looks + [
        True
    ]
    assert search.limit == found
    assert search.observe(1.0) == found + 4, "it looks for gains anew: others may have gone"


def test_requests_at_a_time_have_an_upper_and_a_lower_bound() -> None:
    search = InFlightSearch(max_batch=8, instances=2)
    assert search.limit == 32
    limits = [search.observe(1.0 + step / 2) for step in range(10)]
    assert limits[-1] == max(limits) == 64
    search = InFlightSearch(max_batch=8, instances=1)
    assert [search.refused() for _ in range(8)][-1] == 4
    assert InFlightSearch(max_batch=1, instances=1).refused() == 1


def test_a_servers_histogram_is_read_as_the_mean_batch_since_the_last_look() -> None:
    histogram = BatchHistogram()
    assert histogram.mean_since({8: 1, 2: 1}) == 5.0
    assert histogram.mean_since({8: 1, 2: 1}) is None
    assert histogram.mean_since({8: 3, 2: 2}) == 6.0
    assert histogram.mean_since({8: 1}) is None, "the server was started anew"
    assert histogram.mean_since({8: 2}) == 8.0
