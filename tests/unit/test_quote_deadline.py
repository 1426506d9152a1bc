"""A quote says how many workers a deadline needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cluster.lifetime import ServerBilling
from jobs.quote.estimate import Crew, Work, worker_seconds
from jobs.quote.notes import held_by
from jobs.quote.offers import Asked, Kept

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEPT = Kept(
    images=1000,
    image_bytes=None,
    months=0.0,
    apart=True,
    commit_images=256,
    commit_s=30.0,
    price=None,
    local=True,
)
ONE_HOUR = Asked(
    work=Work(seconds=3600.0, variance=0.01, freedom=30.0),
    crew=Crew(workers=1, shards=1000, load_s=60.0),
    sizes=(),
    kept=KEPT,
    here=None,
    gpus=None,
)


def told(deadline: str | None) -> list[str]:
    return list(held_by(deadline, ONE_HOUR, NOW))


def test_without_a_deadline_or_of_servers_nothing_is_said() -> None:
    assert told(None) == []
    servers = replace(ONE_HOUR, servers=ServerBilling.OWNED)
    assert list(held_by("2h", servers, NOW)) == []


@pytest.mark.parametrize(
    ("deadline", "workers"),
    [("2h", "1 worker"), ("15m", "6 workers"), ("2026-11-23T12:15:00+00:00", "6 workers")],
)
def test_the_fewest_that_end_in_time_at_the_slow_end_of_the_interval(
    deadline: str, workers: str
) -> None:
    assert told(deadline) == [
        f"job.deadline={deadline}: about {workers} like this one would hold it; adding machines "
        "takes time besides"
    ]


def test_the_number_is_the_fewest() -> None:
    for workers, holds in ((5, False), (6, True)):
        seconds = worker_seconds(ONE_HOUR.work, Crew(workers=workers, shards=1000, load_s=60.0))
        assert seconds.high is not None
        assert (seconds.high <= 900) == holds


@pytest.mark.parametrize("deadline", ["60s", "2026-11-23T11:00:00Z"])
def test_a_deadline_before_the_model_is_loaded_is_held_by_nobody(deadline: str) -> None:
    (note,) = told(deadline)
    assert "no number of workers like this one holds it" in note
