"""What is estimated of images whose answers were lost."""

from __future__ import annotations

import dataclasses

import pytest

from operators.triton_client.lost_time import LostTime
from tests.scripted_triton import row

LIKE = row(0)
TWICE = dataclasses.replace(LIKE, steps=2 * LIKE.steps)


def test_before_the_first_answer_nothing_is_known() -> None:
    assert LostTime().estimate_ns(LIKE, stay_s=5.0) == 0


@pytest.mark.parametrize(
    ("stay_s", "expected_ns"), [(0.0, 0), (1.0, 250), (2.0, 500), (4.0, 1000), (90.0, 1000)]
)
def test_a_lost_image_counts_for_the_part_of_the_usual_stay_that_it_stayed(
    stay_s: float, expected_ns: int
) -> None:
    lost = LostTime()
    lost.answered(LIKE, device_ns=800, stay_s=3.0)
    lost.answered(LIKE, device_ns=1200, stay_s=5.0)
    assert lost.estimate_ns(LIKE, stay_s=stay_s) == expected_ns


def test_an_image_of_more_steps_or_pixels_counts_for_more() -> None:
    lost = LostTime()
    lost.answered(LIKE, device_ns=1000, stay_s=1.0)
    assert lost.estimate_ns(TWICE, stay_s=1.0) == 2000
    wide = dataclasses.replace(LIKE, width=3 * LIKE.width)
    assert lost.estimate_ns(wide, stay_s=1.0) == 3000
