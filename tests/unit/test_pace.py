"""How fast a worker is, from what all of them report."""

from __future__ import annotations

import math

import pytest

from cluster.pace import Pace


def test_a_worker_is_timed_from_its_first_images_on_so_that_its_start_is_not_in_it() -> None:
    pace = Pace()
    pace.report("ada", 0, 0.0)
    pace.report("ada", 8, 300.0)
    assert pace.rate is None
    pace.report("ada", 16, 304.0)
    assert pace.rate == pytest.approx(2.0)


def test_a_batch_that_is_under_way_does_not_make_the_worker_look_slow() -> None:
    pace = Pace()
    for made, now_s in ((8, 0.0), (8, 2.0), (16, 4.0), (16, 7.9)):
        pace.report("ada", made, now_s)
    assert pace.rate == pytest.approx(2.0)


def test_the_rate_is_that_of_one_worker_over_all_of_them() -> None:
    pace = Pace()
    for now_s, fast, slow in ((0.0, 10, 1), (10.0, 40, 11)):
        pace.report("fast", fast, now_s)
        pace.report("slow", slow, now_s)
    assert pace.rate == pytest.approx((30 + 10) / 20)


def test_a_worker_that_is_gone_is_forgotten_and_what_it_made_counts() -> None:
    pace = Pace()
    pace.report("ada", 8, 0.0)
    pace.report("ada", 16, 4.0)
    pace.gone("ada")
    pace.gone("nobody")
    pace.report("ada", 24, 100.0)
    assert pace.rate == pytest.approx(2.0)


def test_what_was_made_long_ago_counts_less() -> None:
    pace = Pace()
    for made, now_s in ((1, 0.0), (101, 100.0), (102, 1900.0)):
        pace.report("ada", made, now_s)
    kept = math.exp(-1)
    assert pace.rate == pytest.approx((100 * kept + 1) / (100 * kept + 1800))
