"""``imagemill status``: how far a job is, from its output alone."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from cluster import layout
from cluster.budget import Caps
from cluster.driver_mark import DriverMark
from cluster.job_log import (
    as_last_run,
    cancel_asked,
    end_reason,
    generation,
    is_finished,
    last_run,
    read_job,
)
from cluster.plan_file import PlanReader
from cluster.records import RunRecord
from cluster.store import Store
from cluster.totals import Bill, Totals, close, fold
from conf.secrets import without_secrets
from jobs.company import WATCH_S, watch
from jobs.deadline import deadline_words
from jobs.figures import (
    COST_UNKNOWN,
    MEND,
    SIMULATED,
    cost_unknown,
    estimated,
    format_money,
    is_simulated,
    named_once,
    plural,
    size,
    unpriced,
)
from jobs.project import project_line
from jobs.rejections import Rejections, reason_lines, rejections
from jobs.spending import caps_of, keys_to_go_on, spent_by

_MOST_BROKEN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the store says of a job. ``planned`` false: it was stopped before its plan was written.

    ``project`` is its project's budget in words, "" where it has none.
    ``broken_files`` are the first input files that were left out, with the reason.
    ``deadline`` and how it stands, "" without one.
    ``end_reason`` None: the last run did not say that it ended; then ``driver`` is its mark if it
    was seen alive.
    ``rejected`` says why rows are quarantined, None where none is.
    """

    url: str
    name: str
    created_at: str
    planned: bool
    finished: bool
    generation: int
    rows: int
    committed: int
    quarantined: int
    pending: int
    images: int
    image_bytes: int
    shards: int
    sealed: int
    attempts: int
    bill: Bill
    currency: str
    caps: Caps
    project: str
    deadline: str
    last_run: RunRecord | None
    end_reason: str | None
    driver: DriverMark | None
    cancel_asked: bool
    broken_files: tuple[str, ...]
    simulated: bool
    rejected: Rejections | None


def status(store: Store, *, watch_s: float = WATCH_S) -> Status:
    """Fold what counts. Safe while the job runs: the numbers are then those of a moment.

    A run that did not say that it ended is watched for a sign of life, for ``watch_s`` at most;
    what one that is over still holds of its project's budget is given back.

    Raises:
        OutputMissing: no job lives there.
        CorruptOutput: a record that counts is missing or damaged.
    """
    job = as_last_run(store, read_job(store))
    number = generation(store)
    run = last_run(store)
    planned = store.exists(layout.PLAN_SHARDS) and store.exists(layout.PLAN_INPUTS)
    plan = PlanReader(store) if planned else None
    totals = fold(store, plan) if plan else Totals()
    finished = is_finished(store, number)
    ended = end_reason(store, run.run) if run else None
    open_run = run is not None and not finished and ended is None
    driver = watch(store, run.run, watch_s=watch_s) if run and open_run else None
    lost = rejections(store, plan, totals.quarantined) if plan and totals.quarantined else None
    broken = (
        (named_once(f"{i.source}: {i.problem}") for i in plan.inputs() if i.problem)
        if plan
        else iter(())
    )
    return Status(
        url=store.url,
        name=job.config.job.name or "",
        created_at=job.created_at,
        planned=planned,
        finished=finished,
        generation=number,
        rows=totals.rows,
        committed=totals.committed,
        quarantined=totals.quarantined,
        pending=totals.pending,
        images=totals.images,
        image_bytes=totals.image_bytes,
        shards=totals.shards,
        sealed=totals.sealed,
        attempts=totals.attempts,
        bill=close(totals, job.config.pricing.storage_months),
        currency=job.currency,
        caps=caps_of(job),
        project=project_line(job, store, over=ended is not None or finished or driver is None),
        deadline=deadline_words(job, store, _expected(driver)),
        last_run=run,
        end_reason=ended,
        driver=driver,
        cancel_asked=run is not None and cancel_asked(store, run.run),
        broken_files=tuple(islice(broken, _MOST_BROKEN)),
        simulated=is_simulated(job.config),
        rejected=lost,
    )


def _expected(driver: DriverMark | None) -> datetime | None:
    ends_at = driver.ends_at if driver else None
    return None if ends_at is None else datetime.fromisoformat(ends_at)


def status_lines(found: Status) -> list[str]:
    """The status for the terminal."""
    state = "finished" if found.finished else "not finished"
    retries = f", {plural(found.generation, 'retry').replace('retrys', 'retries')}"
    lines = [f"job        {found.name}, {state}{retries if found.generation else ''}"]
    if found.simulated:
        lines.append(SIMULATED)
    lines.append(f"created    {found.created_at}")
    lines.append(f"last run   {_run(found)}")
    if found.driver is not None and found.driver.crew:
        lines.append(f"workers    {found.driver.crew}")
    if found.deadline:
        lines.append(f"deadline   {found.deadline}")
    if found.planned:
        lines += _progress(found)
    lines += [f"left out   {problem}" for problem in found.broken_files]
    lines.append(f"output     {without_secrets(found.url)}")
    lines.append(f"next       {_next(found)}")
    return lines


def _run(found: Status) -> str:
    run = found.last_run
    if run is None:
        return "none yet"
    begun = f"number {run.run}, started {run.started_at} with {plural(run.workers, 'worker')}"
    if found.end_reason is not None:
        return f"{begun}; ended: {found.end_reason}"
    if found.finished:
        return f"{begun}; it finished the job"
    asked = ", asked to stop" if found.cancel_asked else ""
    if found.driver is None:
        return f"{begun}{asked}; killed or frozen: it gives no sign of life"
    return f"{begun}{asked}; at work on host {found.driver.host} as process {found.driver.pid}"


def _progress(found: Status) -> list[str]:
    open_work = not found.finished and found.end_reason is None
    names = {"wasted": "not committed yet, or wasted"} if open_work else {}
    kinds = ", ".join(
        f"{names.get(kind, kind)} {format_money(amount, found.currency)}"
        for kind, amount in found.bill.amount.items()
    )
    so_far = "" if found.finished else " so far"
    known = f"{format_money(found.bill.total_amount, found.currency)}{so_far} ({kinds})"
    tries = f", up to {found.attempts} attempts at one" if found.attempts > 1 else ""
    return [
        f"rows       {found.rows:,}: {found.committed:,} committed, {found.quarantined:,} "
        f"quarantined, {found.pending:,} pending",
        *(reason_lines(found.rejected) if found.rejected else []),
        f"images     {found.images:,} ({size(found.image_bytes)})",
        f"shards     {found.sealed:,} of {found.shards:,} sealed{tries}",
        f"cost       {COST_UNKNOWN if cost_unknown(found.bill) else known}",
        *([f"unpriced   {unpriced(found.bill)}"] if unpriced(found.bill) else []),
        *([f"estimated  {estimated(found.bill)}"] if estimated(found.bill) else []),
        *([f"budget     {found.caps.used(spent_by(found.bill))}"] if found.caps.any else []),
        *([f"project    {found.project}"] if found.project else []),
    ]


def _next(found: Status) -> str:
    quoted = shlex.quote(found.url)
    if not found.finished:
        if found.driver is not None:
            return f"wait for its end, or stop it: imagemill cancel {quoted}"
        return f"imagemill resume {quoted}{keys_to_go_on(found.end_reason or '')}"
    if found.rejected is not None and found.rejected.hopeless:
        return MEND
    if found.rejected is not None:
        again = f"imagemill retry {quoted} works on the quarantined rows again"
        least = "" if found.rejected.whole else "at least "
        known = f"; {least}{found.rejected.at_read:,} of them only the input mends"
        return again + (known if found.rejected.at_read else "")
    return f"nothing is left to do; imagemill verify {quoted} re-reads every object"
