"""The end of a run: fold what counts, close the ledger, write manifest and report."""

from __future__ import annotations

import json
import logging
import shlex
from dataclasses import dataclass

from cluster import layout
from cluster.job_log import JobRecord, is_finished
from cluster.ledger import Attribution, ledger_table
from cluster.lifetime import utc_now
from cluster.money import as_decimal
from cluster.plan_file import InputFile, PlanReader
from cluster.settled import Settled
from cluster.store import Store
from cluster.store_access import LOOK_S
from cluster.supervisor import RunEnd
from cluster.totals import Bill, Totals, add_stamps, all_lines, close, fold
from conf.errors import (
    CommitConflict,
    CorruptOutput,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from conf.secrets import without_secrets
from jobs.deadline import deadline_words, due_of
from jobs.figures import cost_unknown, plural
from jobs.gc import collect
from jobs.quote.against import Against, against
from jobs.quote.kept import quote_of
from jobs.rejections import Rejections, rejections
from jobs.report import ReportFacts, Survey, survey, write_report
from jobs.worker_ledger import add_lines

log = logging.getLogger("imagemill")
_RENEWALS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """What an output holds after a run. ``written`` are the keys of reports; ``against`` is None
    where nothing was quoted, ``rejected`` where no row is quarantined."""

    finished: bool
    totals: Totals
    bill: Bill
    broken_files: tuple[InputFile, ...]
    facts: ReportFacts
    written: tuple[str, ...]
    against: Against | None = None
    rejected: Rejections | None = None


def finish(
    store: Store,
    job: JobRecord,
    plan: PlanReader,
    *,
    generation: int,
    end: RunEnd | None,
    wall_s: float,
    ours: bool = True,
) -> Finish:
    """Sum up and report; a finished generation gets its manifest. Safe to repeat.

    A run that says that it finished is believed only if every shard is sealed and no row pending.

    Args:
        generation: the run's; without a run the job's newest.
        end: how the run ended; None for looking at a job without running it.
        ours: whether no later run is at work, whose manifest these would be. Once the job is
            finished, whoever leaves last renews ledger and reports: its workers lived until now.
    """
    totals = fold(store, plan)
    closing: Bill | None = None
    quote = quote_of(store)
    whole = totals.sealed == totals.shards and not totals.pending
    done = is_finished(store, generation) or (end is not None and end.finished and whole)
    if done and end is not None and ours:
        # before the manifest: what is finished has its whole bill on the ledger
        closing = close_ledger(store, job, totals)
        _write_manifest(
            store, job, generation, totals, closing, against(quote, totals, closing, job.currency)
        )
        if totals.attempts > 1 or totals.quarantined:
            sweep(store, plan)
    broken = tuple(item for item in plan.inputs() if item.problem)
    facts = ReportFacts(
        wall_s=wall_s,
        restarts=end.restarts if end else 0,
        reason=_why_not(end, totals) if end and not done else "",
        futile=end is not None and end.futile and not done,
        broken_files=tuple(f"{item.source}: {item.problem}" for item in broken),
        deadline=deadline_words(job, store),
    )
    written: tuple[str, ...] = ()
    counts: Survey | None = None
    if ours or done:
        closing, written, counts = _write_derived(
            store, job, plan, totals, facts, closing, needed=done
        )
    bill = closing or close(totals, job.config.pricing.storage_months)
    return Finish(
        finished=done,
        totals=totals,
        bill=bill,
        broken_files=broken,
        facts=facts,
        written=written,
        against=against(quote, totals, bill, job.currency),
        rejected=_rejected(store, plan, totals, counts),
    )


def _rejected(
    store: Store, plan: PlanReader, totals: Totals, counts: Survey | None
) -> Rejections | None:
    """Why rows are quarantined, as the report counted it; where there is none, by a part of it."""
    if not totals.quarantined:
        return None
    if counts is not None:
        return Rejections.of(counts, rows=totals.quarantined)
    return rejections(store.with_patience(min(LOOK_S, store.patience_s)), plan, totals.quarantined)


def _why_not(end: RunEnd, totals: Totals) -> str:
    """Why a run did not finish the job."""
    if not end.finished:
        return end.reason
    return (
        f"the run took itself for finished, but {totals.sealed:,} of {totals.shards:,} shards are "
        f"sealed and {plural(totals.pending, 'row')} pending; no manifest was written"
    )


def _write_derived(
    store: Store,
    job: JobRecord,
    plan: PlanReader,
    totals: Totals,
    facts: ReportFacts,
    closing: Bill | None,
    *,
    needed: bool,
) -> tuple[Bill, tuple[str, ...], Survey | None]:
    """Ledger of the workers and reports; returns the bill in them, where they lie and what they
    count. Of a job that is not finished they may be missing: a full disk, or a table that somebody
    removed, must not hide what was reached and how to go on."""
    try:
        closing = close_ledger(store, job, totals, closing)
        try:
            counts = survey(store, plan)
            written = write_report(store, job, plan, totals, closing, facts, counts)
            return closing, tuple(written), counts
        except CorruptOutput as error:
            raise CorruptOutput(
                f"{error}; reports and costs/ cannot be written anew without it: imagemill verify "
                f"{shlex.quote(without_secrets(store.url))} names all that is missing"
            ) from error
    except (StoreFull, StoreUnavailable, StoreRefused, CorruptOutput) as error:
        if needed:
            raise
        log.warning("no report was written: %s", error, extra={"event": "no_report"})
        return close(totals, job.config.pricing.storage_months), (), None


def close_ledger(store: Store, job: JobRecord, totals: Totals, written: Bill | None = None) -> Bill:
    """Write the workers' lines, and again when a worker of another run stamped meanwhile: two
    drivers that end at once must not replace the fuller ledger by the older one.

    Args:
        written: the bill that this run has on the ledger already: without news nothing is written.
    """
    months = job.config.pricing.storage_months
    if written is not None:
        add_stamps(store, totals)
    for _ in range(_RENEWALS):
        closing = close(totals, months)
        if closing == written:
            break
        add_lines(store, ledger_table(all_lines(totals, months), Attribution.of(job.config.job)))
        written = closing
        add_stamps(store, totals)
    return close(totals, months)


def sweep(store: Store, plan: PlanReader) -> None:
    """Remove what fenced attempts left, so that globbing the folders reads just what counts.

    A job is finished without it: where nothing can be removed, that is a warning.
    """
    try:
        among = Settled.of(store).maybe_littered(range(plan.shards))
        collect(store, dry_run=False, among=among)
    except (CorruptOutput, StoreUnavailable, StoreRefused) as error:
        log.warning(
            "what failed attempts left stays, counted by no commit: %s; remove it later with: "
            "imagemill gc %s --delete",
            error,
            shlex.quote(store.url),
            extra={"event": "sweep_stopped"},
        )


def _write_manifest(
    store: Store,
    job: JobRecord,
    number: int,
    totals: Totals,
    closing: Bill,
    found: Against | None,
) -> None:
    """The put-if-absent write that finishes a generation; a copy lies at the top for people."""
    deadline = due_of(job)
    manifest = {
        "schema": 1,
        "kind": "Manifest",
        "generation": number,
        "finished_at": utc_now(),
        "deadline": deadline.isoformat() if deadline else None,
        "job": job.config.job.name,
        "project": job.config.job.project,
        "tags": job.config.job.tags,
        "digest": job.digest,
        "model": job.config.model.name,
        "model_revision": job.model_revision,
        "rows": totals.rows,
        "committed": totals.committed,
        "quarantined": totals.quarantined,
        "images": totals.images,
        "image_bytes": totals.image_bytes,
        "shards": totals.shards,
        "cost": None if cost_unknown(closing) else f"{as_decimal(closing.total_amount):f}",
        "currency": job.currency,
        "workers": closing.workers,
        "workers_unpriced": len(closing.unpriced),
        "quoted": found.to_mapping() if found else None,
    }
    data = (json.dumps(manifest, indent=2) + "\n").encode()
    try:
        store.put_if_absent(layout.manifest(number), data)
    except CommitConflict:
        data = store.get(layout.manifest(number)) or data
    store.put(layout.MANIFEST, data)
