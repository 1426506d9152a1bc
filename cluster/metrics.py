"""What a run tells Prometheus, through Ray's own exporter: its series, and how they are read off.

Ray puts ``ray_`` before each name and the labels of the process behind ours. Labels are bounded: a
job, its project and a few words, never a row, a shard or a prompt. Nothing is kept here: with the
process its series end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.util import metrics as ray_metrics

from cluster.budget import Caps
from cluster.coordinator import Snapshot
from cluster.reading import Reading

JOB_LABELS = ("job", "project")
"""On every series."""
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
_NANO = 1e-9
_NS = 1e-9
_PUT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the classes of put latencies, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A name as ImageMill gives it, what it is, and its labels beside ``JOB_LABELS``."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees; of a histogram without ``_bucket``, ``_sum``, ``_count``."""
        return f"ray_{self.name}"


RUN_SERIES = (
    Series(
        name="imagemill_rows",
        kind=GAUGE,
        help="Rows of the job: pending, committed or quarantined",
        labels=("state",),
    ),
    Series(
        name="imagemill_images",
        kind=GAUGE,
        help="Images that are committed or held by workers for their next commit",
    ),
    Series(
        name="imagemill_shards",
        kind=GAUGE,
        help="Shards of this run: waiting, leased or sealed",
        labels=("state",),
    ),
    Series(
        name="imagemill_workers",
        kind=GAUGE,
        help="Workers by what they do: starting, loading, running or leaving",
        labels=("phase",),
    ),
    Series(
        name="imagemill_workers_silent",
        kind=GAUGE,
        help="Workers that gave no sign of life for longer than a lease lasts",
    ),
    Series(
        name="imagemill_spent",
        kind=GAUGE,
        help="What the job has cost so far: this run, and with a budget earlier ones too",
        labels=("currency",),
    ),
    Series(
        name="imagemill_budget_left",
        kind=GAUGE,
        help="What is left of budget.max_cost; absent without it",
        labels=("currency",),
    ),
    Series(
        name="imagemill_budget_used_ratio",
        kind=GAUGE,
        help="Used share of the tighter cap of cost and hours; absent without any",
    ),
)
"""Told by the coordinator."""
WORKER_SERIES = (
    Series(
        name="imagemill_images_made_total",
        kind=COUNTER,
        help="Images that workers finished, whatever became of them",
    ),
    Series(name="imagemill_commits_total", kind=COUNTER, help="Commits that landed"),
    Series(name="imagemill_ticks_total", kind=COUNTER, help="Steps of a whole batch"),
    Series(
        name="imagemill_batch_rows_total",
        kind=COUNTER,
        help="Rows that took part in steps; over the slots: the batch fill",
    ),
    Series(
        name="imagemill_batch_slots_total", kind=COUNTER, help="Slots that steps had for rows"
    ),
    Series(
        name="imagemill_device_busy_seconds_total",
        kind=COUNTER,
        help="Device time of steps, conditioning and decoding; over ticks: seconds of a tick",
    ),
    Series(
        name="imagemill_worker_seconds_total", kind=COUNTER, help="Lifetime of workers: the bill"
    ),
    Series(
        name="imagemill_worker_cost_total",
        kind=COUNTER,
        help="What workers and their requests cost",
        labels=("currency",),
    ),
    Series(
        name="imagemill_store_requests_total",
        kind=COUNTER,
        help="Requests to a remote store as it charges them: write or read",
        labels=("kind",),
    ),
    Series(
        name="imagemill_store_retries_total",
        kind=COUNTER,
        help="Tries of store operations that failed and were made again",
    ),
    Series(
        name="imagemill_store_put_seconds",
        kind=HISTOGRAM,
        help="How long a new object took to land, tries included",
    ),
    Series(
        name="imagemill_queue_depth",
        kind=GAUGE,
        help="What waits in a worker: requests for the engine, rows inside it, uploads, commits",
        labels=("queue",),
    ),
)
"""Told by every worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value of a series with the labels beside the job's."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def run_values(snapshot: Snapshot, *, rows: int, caps: Caps) -> Iterator[Value]:
    """The series of a run. ``rows``: of the whole job."""
    counts = snapshot.counts
    states = {
        "committed": counts.rows,
        "quarantined": counts.quarantined,
        "pending": max(0, rows - counts.rows - counts.quarantined),
    }
    yield from _by("imagemill_rows", "state", states)
    yield Value(name="imagemill_images", value=counts.images)
    waiting = snapshot.shards - snapshot.sealed - snapshot.held
    shards = {"sealed": snapshot.sealed, "leased": snapshot.held, "waiting": max(0, waiting)}
    yield from _by("imagemill_shards", "state", shards)
    phases = ("starting", "loading", "running", "leaving")
    workers = {phase: snapshot.phases.count(phase) for phase in phases}
    yield from _by("imagemill_workers", "phase", workers)
    yield Value(name="imagemill_workers_silent", value=len(snapshot.silent))
    currency = {"currency": caps.currency}
    if not snapshot.unpriced:
        spent = snapshot.spent.nano * _NANO
        yield Value(name="imagemill_spent", value=spent, labels=currency)
        if caps.nano is not None:
            left = caps.nano * _NANO - spent
            yield Value(name="imagemill_budget_left", value=left, labels=currency)
    if caps.any:
        yield Value(name="imagemill_budget_used_ratio", value=caps.share(snapshot.spent))


def _by(name: str, label: str, values: Mapping[str, int]) -> Iterator[Value]:
    for word, value in values.items():
        yield Value(name=name, value=value, labels={label: word})


def worker_totals(reading: Reading, *, currency: str) -> Iterator[Value]:
    """The counters of a worker as running totals, by the same names and labels every time."""
    progress, stats, effort = reading.progress, reading.stats, reading.effort
    yield Value(name="imagemill_images_made_total", value=progress.made)
    yield Value(name="imagemill_commits_total", value=progress.commits)
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
    yield Value(name="imagemill_store_retries_total", value=effort.retries)


class _Exporter:
    """Ray's metrics for some series, with the job's labels."""

    def __init__(self, series: Sequence[Series], *, job: str, project: str) -> None:
        self._metrics: dict[str, Any] = {}
        for one in series:
            keys = (*JOB_LABELS, *one.labels)
            if one.kind == HISTOGRAM:
                made: Any = ray_metrics.Histogram(one.name, one.help, list(_PUT_SECONDS), keys)
            else:
                kind = ray_metrics.Counter if one.kind == COUNTER else ray_metrics.Gauge
                made = kind(one.name, one.help, keys)
            self._metrics[one.name] = made.set_default_tags({"job": job, "project": project})

    def set(self, value: Value) -> None:
        self._metrics[value.name].set(value.value, tags=dict(value.labels))

    def add(self, value: Value, more: float) -> None:
        if more > 0:
            self._metrics[value.name].inc(more, tags=dict(value.labels))

    def observe(self, name: str, value: float) -> None:
        self._metrics[name].observe(value)


class RunMetrics:
    """Tells the state of a run. One a coordinator's process.

    Args:
        rows: of the whole job.
    """

    def __init__(self, *, job: str, project: str, rows: int, caps: Caps) -> None:
        self._exporter = _Exporter(RUN_SERIES, job=job, project=project)
        self._rows = rows
        self._caps = caps

    def tell(self, snapshot: Snapshot) -> None:
        """The newest state."""
        for value in run_values(snapshot, rows=self._rows, caps=self._caps):
            self._exporter.set(value)


class WorkerMetrics:
    """Tells what a worker does. One a worker's process."""

    def __init__(self, *, job: str, project: str, currency: str) -> None:
        self._exporter = _Exporter(WORKER_SERIES, job=job, project=project)
        self._currency = currency
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}

    def tell(self, reading: Reading) -> None:
        """The newest totals: counters grow by what is new since the last time."""
        for value in worker_totals(reading, currency=self._currency):
            key = (value.name, tuple(value.labels.values()))
            self._exporter.add(value, value.value - self._told.get(key, 0.0))
            self._told[key] = value.value
        for value in _by("imagemill_queue_depth", "queue", reading.queues):
            self._exporter.set(value)

    def put_took(self, seconds: float) -> None:
        """An object landed after so long."""
        self._exporter.observe("imagemill_store_put_seconds", seconds)
