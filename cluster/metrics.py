"""What a run tells Prometheus through Ray's own exporter: the values of ``series``.

Nothing is kept here that somebody else needs: with the process its gauges end.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.util import metrics as ray_metrics

from cluster.budget import Caps
from cluster.coordinator import Snapshot
from cluster.headcount import Headcount
from cluster.reading import Reading
from cluster.series import COUNTER, GAUGE, HISTOGRAM, JOB_LABELS, RUN_SERIES, WORKER_SERIES, Series
from cluster.setbacks import Loss

_NANO = 1e-9
_NS = 1e-9
_PUT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the classes of put latencies, seconds."""
_BORN = 1e-300
"""A counter's first value. Prometheus sees no growth without one, and Ray does not take 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value of a series with the labels beside the job's; of a counter the running total."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def run_values(
    snapshot: Snapshot,
    *,
    rows: int,
    max_quarantined: float,
    caps: Caps,
    headcount: Headcount | None,
) -> Iterator[Value]:
    """The series of a run. ``rows``: of the whole job; ``headcount`` None: not known yet."""
    counts = snapshot.counts
    states = {
        "committed": counts.rows,
        "quarantined": counts.quarantined,
        "pending": max(0, rows - counts.rows - counts.quarantined),
    }
    yield from _by("imagemill_rows", "state", states)
    yield Value(name="imagemill_quarantine_limit_ratio", value=max_quarantined)
    yield Value(name="imagemill_images", value=counts.images)
    yield Value(name="imagemill_images_made_total", value=snapshot.made)
    yield Value(name="imagemill_commits_total", value=snapshot.commits)
    waiting = snapshot.shards - snapshot.sealed - snapshot.held
    shards = {"sealed": snapshot.sealed, "leased": snapshot.held, "waiting": max(0, waiting)}
    yield from _by("imagemill_shards", "state", shards)
    phases = ("starting", "loading", "running", "leaving")
    workers = {phase: snapshot.phases.count(phase) for phase in phases}
    yield from _by("imagemill_workers", "phase", workers)
    if headcount is not None:
        yield Value(name="imagemill_workers_wanted", value=headcount.wanted)
        yield Value(name="imagemill_workers_waiting", value=headcount.waiting)
    lost = {loss.value: snapshot.lost.get(loss, 0) for loss in Loss}
    yield from _by("imagemill_workers_lost_total", "how", lost)
    yield from _money(snapshot, caps)


def _money(snapshot: Snapshot, caps: Caps) -> Iterator[Value]:
    currency = {"currency": caps.currency}
    if not snapshot.unpriced:
        spent = snapshot.spent.nano * _NANO
        on_images = snapshot.counts.amount_nano * _NANO
        yield Value(name="imagemill_spent", value=spent, labels=currency)
        yield Value(name="imagemill_spent_on_images", value=on_images, labels=currency)
        if caps.nano is not None:
            left = caps.nano * _NANO - spent
            yield Value(name="imagemill_budget_left", value=left, labels=currency)
    if caps.any:
        yield Value(name="imagemill_budget_used_ratio", value=caps.share(snapshot.spent))


def worker_values(reading: Reading, *, currency: str) -> Iterator[Value]:
    """The series of a worker but its put latencies."""
    progress, stats = reading.progress, reading.stats
    yield Value(name="imagemill_ticks_total", value=stats.ticks if stats else 0)
    yield Value(name="imagemill_batch_rows_total", value=progress.occupied)
    yield Value(name="imagemill_batch_slots_total", value=progress.offered)
    busy_s = stats.busy_ns * _NS if stats else 0.0
    yield Value(name="imagemill_device_busy_seconds_total", value=busy_s)
    yield Value(name="imagemill_worker_seconds_total", value=progress.lifetime_ns * _NS)
    if progress.nano_per_hour is not None:
        yield Value(
            name="imagemill_worker_cost_total",
            value=progress.cost_nano * _NANO,
            labels={"currency": currency},
        )
    requests = {"write": reading.requests.writes, "read": reading.requests.reads}
    yield from _by("imagemill_store_requests_total", "kind", requests)
    yield Value(name="imagemill_store_retries_total", value=reading.retries)
    yield from _by("imagemill_queue_depth", "queue", reading.queues)


def _by(name: str, label: str, values: Mapping[str, int]) -> Iterator[Value]:
    for word, value in values.items():
        yield Value(name=name, value=value, labels={label: word})


class _Teller:
    """Ray's metrics for some series, with the job's labels. Safe to use from several threads.

    A counter grows by what is new since the last time, and a gauge that has no value any more
    becomes NaN, which is above and below nothing.
    """

    def __init__(self, series: Sequence[Series], *, job: str, project: str) -> None:
        self._metrics: dict[str, Any] = {}
        self._counters = {one.name for one in series if one.kind == COUNTER}
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock = threading.Lock()
        for one in series:
            made = _ray_metric(one)
            self._metrics[one.name] = made.set_default_tags({"job_name": job, "project": project})

    def tell(self, values: Iterable[Value]) -> None:
        """The newest values."""
        with self._lock:
            gone = {key for key in self._told if key[0] not in self._counters}
            for value in values:
                key = (value.name, tuple(value.labels.items()))
                gone.discard(key)
                if value.name in self._counters:
                    self._count(key, value)
                else:
                    self._told[key] = value.value
                    self._metrics[value.name].set(value.value, tags=dict(value.labels))
            for name, labels in gone:
                self._metrics[name].set(math.nan, tags=dict(labels))

    def observe(self, name: str, value: float) -> None:
        """One more value of a histogram."""
        self._metrics[name].observe(value)

    def _count(self, key: tuple[str, tuple[tuple[str, str], ...]], value: Value) -> None:
        before = self._told.get(key)
        more = value.value - (before or 0.0)
        if before is None or more > 0:
            self._told[key] = value.value
            self._metrics[value.name].inc(max(more, _BORN), tags=dict(value.labels))


def _ray_metric(series: Series) -> Any:
    keys = (*JOB_LABELS, *series.labels)
    if series.kind == HISTOGRAM:
        return ray_metrics.Histogram(series.name, series.help, list(_PUT_SECONDS), keys)
    kind = ray_metrics.Gauge if series.kind == GAUGE else ray_metrics.Counter
    return kind(series.name, series.help, keys)


class RunMetrics:
    """Tells the state of a run. One a coordinator's process.

    Args:
        rows: of the whole job.
        max_quarantined: see ``job.max_quarantined``.

    ``headcount``: as the driver has told it; None before that.
    """

    def __init__(
        self, *, job: str, project: str, rows: int, max_quarantined: float, caps: Caps
    ) -> None:
        self._teller = _Teller(RUN_SERIES, job=job, project=project)
        self._rows = rows
        self._max_quarantined = max_quarantined
        self._caps = caps
        self.headcount: Headcount | None = None

    def tell(self, snapshot: Snapshot) -> None:
        """The newest state."""
        self._teller.tell(
            run_values(
                snapshot,
                rows=self._rows,
                max_quarantined=self._max_quarantined,
                caps=self._caps,
                headcount=self.headcount,
            )
        )


class WorkerMetrics:
    """Tells what a worker does. One a worker's process."""

    def __init__(self, *, job: str, project: str, currency: str) -> None:
        self._teller = _Teller(WORKER_SERIES, job=job, project=project)
        self._currency = currency

    def tell(self, reading: Reading) -> None:
        """The newest totals and queues."""
        self._teller.tell(worker_values(reading, currency=self._currency))

    def put_took(self, seconds: float) -> None:
        """An object landed after so long."""
        self._teller.observe("imagemill_store_put_seconds", seconds)
