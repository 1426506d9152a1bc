"""What a run and its workers tell Prometheus."""

from __future__ import annotations

import re

import pytest

from cluster.budget import Caps, Spent
from cluster.coordinator import Counts, Snapshot, WorkerProgress
from cluster.metrics import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    JOB_LABELS,
    RUN_SERIES,
    WORKER_SERIES,
    Value,
    run_values,
    worker_totals,
)
from cluster.reading import Reading
from cluster.traffic import Effort, Requests
from operators.engine import EngineStats

NO_CAPS = Caps(nano=None, ns=None, currency="USD")
CAPS = Caps(nano=40 * 10**9, ns=None, currency="USD")
SERIES = {series.name: series for series in (*RUN_SERIES, *WORKER_SERIES)}


def snapshot(**changes: object) -> Snapshot:
    known: dict[str, object] = {
        "shards": 10,
        "sealed": 4,
        "held": 2,
        "counts": Counts(rows=50, quarantined=3, images=60),
        "made": 70,
        "occupied": 0,
        "offered": 0,
        "lifetime_ns": 0,
        "phases": ("running", "running", "loading"),
        "silent": ("w1",),
        "preempted": (),
        "commits": 5,
        "finished": False,
        "spent": Spent(nano=10 * 10**9, ns=0),
    }
    return Snapshot(**(known | changes))  # type: ignore[arg-type]


def by_labels(values: list[Value]) -> dict[tuple[str, str], float]:
    return {(one.name, "".join(one.labels.values())): one.value for one in values}


def test_a_run_tells_rows_shards_workers_and_money() -> None:
    told = by_labels(list(run_values(snapshot(), rows=100, caps=CAPS)))
    assert told == {
        ("imagemill_rows", "committed"): 50,
        ("imagemill_rows", "quarantined"): 3,
        ("imagemill_rows", "pending"): 47,
        ("imagemill_images", ""): 60,
        ("imagemill_shards", "sealed"): 4,
        ("imagemill_shards", "leased"): 2,
        ("imagemill_shards", "waiting"): 4,
        ("imagemill_workers", "starting"): 0,
        ("imagemill_workers", "loading"): 1,
        ("imagemill_workers", "running"): 2,
        ("imagemill_workers", "leaving"): 0,
        ("imagemill_workers_silent", ""): 1,
        ("imagemill_spent", "USD"): 10,
        ("imagemill_budget_left", "USD"): 30,
        ("imagemill_budget_used_ratio", ""): 0.25,
    }


def test_what_nobody_knows_or_capped_is_not_told() -> None:
    uncapped = by_labels(list(run_values(snapshot(), rows=100, caps=NO_CAPS)))
    assert ("imagemill_spent", "USD") in uncapped
    assert not [name for name, _ in uncapped if "budget" in name]
    unpriced = by_labels(list(run_values(snapshot(unpriced=True), rows=100, caps=CAPS)))
    assert not [name for name, _ in unpriced if name in ("imagemill_spent", "imagemill_budget_left")]


def test_a_worker_tells_running_totals() -> None:
    told = by_labels(list(worker_totals(reading(nano_per_hour=10**9), currency="EUR")))
    assert told == pytest.approx(
        {
            ("imagemill_images_made_total", ""): 7,
            ("imagemill_commits_total", ""): 2,
            ("imagemill_ticks_total", ""): 11,
            ("imagemill_batch_rows_total", ""): 30,
            ("imagemill_batch_slots_total", ""): 40,
            ("imagemill_device_busy_seconds_total", ""): 1.5,
            ("imagemill_worker_seconds_total", ""): 3.0,
            ("imagemill_worker_cost_total", "EUR"): 0.25,
            ("imagemill_store_requests_total", "write"): 5,
            ("imagemill_store_requests_total", "read"): 6,
            ("imagemill_store_retries_total", ""): 4,
        }
    )


def test_a_worker_without_a_price_tells_no_cost() -> None:
    told = by_labels(list(worker_totals(reading(nano_per_hour=None), currency="EUR")))
    assert ("imagemill_worker_cost_total", "EUR") not in told


def reading(*, nano_per_hour: int | None) -> Reading:
    return Reading(
        progress=WorkerProgress(
            phase="running",
            holding=Counts(),
            made=7,
            occupied=30,
            offered=40,
            lifetime_ns=3 * 10**9,
            commits=2,
            cost_nano=25 * 10**7,
            nano_per_hour=nano_per_hour,
        ),
        stats=EngineStats(
            ticks=11,
            occupied=30,
            offered=40,
            other_shapes=0,
            starved=0,
            busy_ns=15 * 10**8,
            active=0,
            waiting=0,
        ),
        requests=Requests(writes=5, reads=6),
        effort=Effort(retries=4),
        queues={"requests": 3},
    )


def test_every_value_has_its_series_with_its_labels() -> None:
    values = [
        *run_values(snapshot(), rows=100, caps=CAPS),
        *worker_totals(reading(nano_per_hour=1), currency="USD"),
    ]
    for value in values:
        assert tuple(value.labels) == SERIES[value.name].labels
    untold = SERIES.keys() - {value.name for value in values}
    assert untold == {"imagemill_store_put_seconds", "imagemill_queue_depth"}


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_names_keep_the_conventions_of_prometheus(series: object) -> None:
    one = SERIES[getattr(series, "name")]
    assert re.fullmatch(r"imagemill(_[a-z]+)+", one.name)
    assert one.kind in (GAUGE, COUNTER, HISTOGRAM)
    assert one.name.endswith("_total") == (one.kind == COUNTER)
    assert (one.name.endswith("_seconds")) == (one.kind == HISTOGRAM)
    assert not {"row", "shard", "image", "worker", "prompt"} & {*one.labels, *JOB_LABELS}
    assert one.help
