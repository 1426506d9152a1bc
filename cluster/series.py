"""The series of Prometheus that ImageMill exports: names, kinds, labels and what they mean.

Ray puts ``ray_`` before each name and the labels of its process behind ours. Ours are bounded: a
job, its project and a few words, never a row, a shard or a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

JOB_LABELS = ("job_name", "project")
"""On every series. Not ``job``: Prometheus writes its own scrape job over that label."""
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A name as ImageMill gives it, what it is, and its labels beside ``JOB_LABELS``."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """What Prometheus sees; of a histogram without ``_bucket``, ``_sum`` or ``_count``."""
        return f"ray_{self.name}"


RUN_SERIES = (
    Series(
        name="imagemill_rows",
        kind=GAUGE,
        help="Rows of the job: pending, committed or quarantined",
        labels=("state",),
    ),
    Series(
        name="imagemill_quarantine_limit_ratio",
        kind=GAUGE,
        help="job.max_quarantined: the share of rows that may be quarantined with exit status 0",
    ),
    Series(name="imagemill_images", kind=GAUGE, help="Images that count: they are committed"),
    Series(
        name="imagemill_images_made_total",
        kind=COUNTER,
        help="Images that workers finished in this run, whatever became of them",
    ),
    Series(name="imagemill_commits_total", kind=COUNTER, help="Commits of this run that landed"),
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
        name="imagemill_workers_wanted",
        kind=GAUGE,
        help="Workers that the run wants: for its deadline, budget, caps and the work that is left",
    ),
    Series(
        name="imagemill_workers_waiting",
        kind=GAUGE,
        help="Workers that were asked for and wait for a machine that an autoscaler has to add",
    ),
    Series(
        name="imagemill_workers_lost_total",
        kind=COUNTER,
        help="Workers that were lost, by how: died, hung (in a tick), silent (for cluster.lease_s) "
        "or stopped (by the store, or for lost contact)",
        labels=("how",),
    ),
    Series(
        name="imagemill_spent",
        kind=GAUGE,
        help="What the job has cost so far: this run, and with a budget earlier ones too",
        labels=("currency",),
    ),
    Series(
        name="imagemill_spent_on_images",
        kind=GAUGE,
        help="What the images that count have cost, of this run and earlier ones; the rest of what "
        "is spent went to loading, waiting and work that was lost",
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
    Series(name="imagemill_ticks_total", kind=COUNTER, help="Steps of a whole batch"),
    Series(
        name="imagemill_batch_rows_total",
        kind=COUNTER,
        help="Rows that took part in steps; over the slots: the batch fill",
    ),
    Series(name="imagemill_batch_slots_total", kind=COUNTER, help="Slots that steps had for rows"),
    Series(
        name="imagemill_device_busy_seconds_total",
        kind=COUNTER,
        help="Device time of steps, conditioning and decoding; over ticks: seconds of a tick; over "
        "the worker's seconds: its use",
    ),
    Series(
        name="imagemill_worker_seconds_total", kind=COUNTER, help="Lifetime of workers: the bill"
    ),
    Series(
        name="imagemill_worker_cost_total",
        kind=COUNTER,
        help="What workers and their requests cost; absent of workers without a price",
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
        help="What waits in a worker: requests (for the engine), engine (rows in it), uploads, "
        "commits (images)",
        labels=("queue",),
    ),
)
"""Told by every worker."""
