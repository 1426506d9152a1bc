"""What a run and its workers tell Prometheus."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
from ray.util import metrics as ray_metrics

from cluster.budget import Caps, Spent
from cluster.coordinator import Coordinator, Counts, Snapshot, WorkerProgress
from cluster.headcount import Headcount
from cluster.metrics import RunMetrics, Value, WorkerMetrics, run_values, worker_values
from cluster.reading import Reading
from cluster.series import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    JOB_LABELS,
    RUN_SERIES,
    WORKER_SERIES,
    Series,
)
from cluster.setbacks import Loss
from cluster.traffic import Requests
from operators.engine import EngineStats
from tests.snapshots import snapshot_of

NO_CAPS = Caps(nano=None, ns=None, currency="USD")
CAPS = Caps(nano=40 * 10**9, ns=None, currency="USD")
STAFFED = Headcount(wanted=8, waiting=5)
SERIES = {series.name: series for series in (*RUN_SERIES, *WORKER_SERIES)}
JOB = {"job_name": "cats", "project": "shop"}


def snapshot(**changes: Any) -> Snapshot:
    known: dict[str, Any] = {
        "shards": 10,
        "sealed": 4,
        "held": 2,
        "counts": Counts(rows=50, quarantined=3, images=60, amount_nano=8 * 10**9),
        "made": 70,
        "phases": ("running", "running", "loading"),
        "commits": 5,
        "spent": Spent(nano=10 * 10**9, ns=0),
        "lost": {Loss.DIED: 2, Loss.STOPPED: 1},
    }
    return snapshot_of(**(known | changes))


def values_of(now: Snapshot, caps: Caps, headcount: Headcount | None = STAFFED) -> list[Value]:
    return list(run_values(now, rows=100, max_quarantined=0.02, caps=caps, headcount=headcount))


def by_labels(values: list[Value]) -> dict[tuple[str, str], float]:
    return {(one.name, "".join(one.labels.values())): one.value for one in values}


def test_a_run_tells_rows_shards_workers_and_money() -> None:
    assert by_labels(values_of(snapshot(), CAPS)) == {
        ("imagemill_rows", "committed"): 50,
        ("imagemill_rows", "quarantined"): 3,
        ("imagemill_rows", "pending"): 47,
        ("imagemill_quarantine_limit_ratio", ""): 0.02,
        ("imagemill_images", ""): 60,
        ("imagemill_images_made_total", ""): 70,
        ("imagemill_commits_total", ""): 5,
        ("imagemill_shards", "sealed"): 4,
        ("imagemill_shards", "leased"): 2,
        ("imagemill_shards", "waiting"): 4,
        ("imagemill_workers", "starting"): 0,
        ("imagemill_workers", "loading"): 1,
        ("imagemill_workers", "running"): 2,
        ("imagemill_workers", "leaving"): 0,
        ("imagemill_workers_wanted", ""): 8,
        ("imagemill_workers_waiting", ""): 5,
        ("imagemill_workers_lost_total", "died"): 2,
        ("imagemill_workers_lost_total", "hung"): 0,
        ("imagemill_workers_lost_total", "silent"): 0,
        ("imagemill_workers_lost_total", "stopped"): 1,
        ("imagemill_spent", "USD"): 10,
        ("imagemill_spent_on_images", "USD"): 8,
        ("imagemill_budget_left", "USD"): 30,
        ("imagemill_budget_used_ratio", ""): 0.25,
    }


def test_what_nobody_knows_or_capped_is_not_told() -> None:
    uncapped = by_labels(values_of(snapshot(), NO_CAPS))
    assert ("imagemill_spent", "USD") in uncapped
    assert not [name for name, _ in uncapped if "budget" in name]
    unpriced = by_labels(values_of(snapshot(unpriced=True), CAPS))
    assert {name for name, _ in unpriced if "spent" in name or "budget" in name} == {
        "imagemill_budget_used_ratio"
    }
    unasked = by_labels(values_of(snapshot(), CAPS, headcount=None))
    assert not [name for name, _ in unasked if "wanted" in name or "waiting" in name]


def test_a_worker_tells_running_totals_and_queues() -> None:
    told = by_labels(list(worker_values(reading(nano_per_hour=10**9), currency="EUR")))
    assert told == pytest.approx(
        {
            ("imagemill_ticks_total", ""): 11,
            ("imagemill_batch_rows_total", ""): 30,
            ("imagemill_batch_slots_total", ""): 40,
            ("imagemill_device_busy_seconds_total", ""): 1.5,
            ("imagemill_worker_seconds_total", ""): 3.0,
            ("imagemill_worker_cost_total", "EUR"): 0.25,
            ("imagemill_store_requests_total", "write"): 5,
            ("imagemill_store_requests_total", "read"): 6,
            ("imagemill_store_retries_total", ""): 4,
            ("imagemill_queue_depth", "requests"): 3,
        }
    )


def test_a_worker_without_a_price_tells_no_cost() -> None:
    told = by_labels(list(worker_values(reading(nano_per_hour=None), currency="EUR")))
    assert ("imagemill_worker_cost_total", "EUR") not in told


def reading(*, nano_per_hour: int | None, occupied: int = 30) -> Reading:
    return Reading(
        progress=WorkerProgress(
            phase="running",
            holding={},
            made=7,
            occupied=occupied,
            offered=40,
            lifetime_ns=3 * 10**9,
            commits=2,
            cost_nano=25 * 10**7,
            nano_per_hour=nano_per_hour,
        ),
        stats=EngineStats(
            ticks=11,
            occupied=occupied,
            offered=40,
            other_shapes=0,
            starved=0,
            busy_ns=15 * 10**8,
            active=0,
            waiting=0,
        ),
        requests=Requests(writes=5, reads=6),
        retries=4,
        queues={"requests": 3},
    )


class Told:
    """What reached Ray: the last value of a gauge, the sum of a counter, by name and labels."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}
        self.observed: list[tuple[str, float]] = []

    def note(
        self, kind: str, name: str, value: float, tags: Mapping[str, str], defaults: object
    ) -> None:
        assert defaults == JOB
        key = (name, "".join(tags.values()))
        before = self.values.get(key, 0.0) if kind == COUNTER else 0.0
        self.values[key] = before + value


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Ray's metrics, caught where they leave our hands: outside of a cluster Ray drops them."""
    seen = Told()

    def set_(self: ray_metrics.Gauge, value: float, tags: Mapping[str, str]) -> None:
        seen.note(GAUGE, self.info["name"], value, tags, self.info["default_tags"])

    def inc(self: ray_metrics.Counter, value: float, tags: Mapping[str, str]) -> None:
        assert value > 0, "Ray refuses it"
        seen.note(COUNTER, self.info["name"], value, tags, self.info["default_tags"])

    def observe(self: ray_metrics.Histogram, value: float) -> None:
        seen.observed.append((self.info["name"], value))

    monkeypatch.setattr(ray_metrics.Gauge, "set", set_)
    monkeypatch.setattr(ray_metrics.Counter, "inc", inc)
    monkeypatch.setattr(ray_metrics.Histogram, "observe", observe)
    return seen


def test_counters_are_born_at_nothing_and_grow_by_what_is_new(told: Told) -> None:
    metrics = WorkerMetrics(job="cats", project="shop", currency="EUR")
    rows = ("imagemill_batch_rows_total", "")
    for occupied, seen in ((0, 0), (30, 30), (30, 30), (20, 30), (45, 45)):
        metrics.tell(reading(nano_per_hour=1, occupied=occupied))
        assert told.values[rows] == pytest.approx(seen), "an older reading may come last"
    assert told.values["imagemill_store_retries_total", ""] == 4
    metrics.put_took(0.2)
    assert told.observed == [("imagemill_store_put_seconds", 0.2)]


def test_a_gauge_that_has_no_value_any_more_is_told_as_unknown(told: Told) -> None:
    metrics = RunMetrics(job="cats", project="shop", rows=100, max_quarantined=0.02, caps=CAPS)
    metrics.tell(snapshot())
    assert told.values["imagemill_spent", "USD"] == 10
    assert told.values["imagemill_workers_lost_total", "silent"] == pytest.approx(0)
    metrics.tell(snapshot(unpriced=True))
    assert math.isnan(told.values["imagemill_spent", "USD"])
    assert told.values["imagemill_rows", "committed"] == 50
    metrics.tell(snapshot())
    assert told.values["imagemill_spent", "USD"] == 10


def test_the_coordinator_counts_lost_workers_by_how_they_were_lost() -> None:
    coordinator = Coordinator(iter(()), total=0, lease_s=1)
    assert coordinator.snapshot().lost == {}
    for loss in (Loss.DIED, Loss.SILENT, Loss.DIED):
        coordinator.lost(loss)
    assert coordinator.snapshot().lost == {Loss.DIED: 2, Loss.SILENT: 1}


def test_only_workers_that_the_store_stopped_say_nothing_of_their_rows() -> None:
    assert [loss for loss in Loss if not loss.crashed] == [Loss.STOPPED]


def test_every_value_has_its_series_with_its_labels() -> None:
    values = [
        *values_of(snapshot(), CAPS),
        *worker_values(reading(nano_per_hour=1), currency="USD"),
    ]
    for value in values:
        assert tuple(value.labels) == SERIES[value.name].labels
    assert SERIES.keys() - {value.name for value in values} == {"imagemill_store_put_seconds"}


@pytest.mark.parametrize("one", SERIES.values(), ids=SERIES)
def test_names_keep_the_conventions_of_prometheus(one: Series) -> None:
    assert re.fullmatch(r"imagemill(_[a-z]+)+", one.name)
    assert one.kind in (GAUGE, COUNTER, HISTOGRAM)
    assert one.name.endswith("_total") == (one.kind == COUNTER)
    assert one.name.endswith("_seconds") == (one.kind == HISTOGRAM)
    labels = {*one.labels, *JOB_LABELS}
    assert not {"row", "shard", "image", "worker", "prompt"} & labels, "without bounds"
    assert not {"job", "instance"} & labels, "Prometheus writes over them"
    assert one.help
