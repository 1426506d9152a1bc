"""What the driver and the workers hear of a coordinator that fails: its own words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from cluster.actors import answer_of
from cluster.ray_start import patiently
from conf.errors import CoordinatorLost, StoreRefused

REFUSED = "s3://bucket/job refused the access key; check AWS_PROFILE on this node"


class Failing:
    """A coordinator whose constructor or method raises."""

    def __init__(self, at_once: bool) -> None:
        if at_once:
            raise StoreRefused(REFUSED)

    def refused(self) -> None:
        raise StoreRefused(REFUSED)

    def broken(self) -> None:
        raise KeyError("ada")


@pytest.fixture(scope="module")
def failing() -> Iterator[Any]:
    given = {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False}
    patiently(lambda: ray.init("local", **given))
    yield ray.remote(Failing).options(num_cpus=0)
    ray.shutdown()


def test_an_error_of_ours_in_the_coordinator_keeps_its_class_and_its_sentence(failing: Any) -> None:
    with pytest.raises(StoreRefused) as raised:
        answer_of(failing.remote(False).refused.remote())
    assert (type(raised.value), str(raised.value)) == (StoreRefused, REFUSED)


def test_a_coordinator_that_cannot_begin_says_why(failing: Any) -> None:
    with pytest.raises(
        CoordinatorLost, match=r"^the run's coordinator died: .*StoreRefused"
    ) as lost:
        answer_of(failing.remote(True).refused.remote())
    assert str(lost.value).endswith(REFUSED)


def test_any_other_error_in_the_coordinator_is_named(failing: Any) -> None:
    with pytest.raises(CoordinatorLost, match=r"^the run's coordinator failed: KeyError: 'ada'$"):
        answer_of(failing.remote(False).broken.remote())
