"""Running a job: run, resume and retry are three ways into the same execution."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from cluster import layout
from cluster.input_files import InputFiles
from cluster.job_log import (
    JobRecord,
    find_job,
    generation,
    is_finished,
    open_retry,
    output_taken,
    write_job,
)
from cluster.lifetime import utc_now
from cluster.plan_file import PlanReader, write_plan
from cluster.settled import Settled
from cluster.store import Store
from cluster.store_access import LOOK_S
from cluster.totals import states
from conf.errors import ConfigError, OutputTaken
from conf.parser import check_project
from conf.price_book import book_of
from conf.schema import RunConfig
from conf.secrets import refuse_secrets
from jobs.cancellation import refuse_cancelled
from jobs.company import refuse_company
from jobs.configure import absolute, compose
from jobs.deadline import refuse_passed
from jobs.execute import JobResult, execute, result_of, resumable, version
from jobs.finish import Finish, finish, sweep
from jobs.hopeless import tell_hopeless
from jobs.maker import revision_now, settle
from jobs.open_job import look_at_job, next_book, nothing_started, open_job, with_absolute_store
from jobs.plan import check_inputs_unchanged, make_plan
from jobs.quote.kept import remembered_quote, write_quote
from jobs.run_keys import keys_taken, refuse_run_keys
from jobs.spending import refuse_spent
from jobs.unique_ids import check_unique_ids
from operators.model_source import plain_source
from operators.row_defaults import row_defaults

log = logging.getLogger("imagemill")


def prepare(overrides: Sequence[str]) -> RunConfig:
    """Compose, check what can be checked without input or output, make local paths absolute.

    Raises:
        ConfigError: what is wrong, and where.
    """
    config = compose(overrides)
    for name, path in (("input.path", config.input.path), ("output.path", config.output.path)):
        if not path.strip():
            raise ConfigError(f"{name} is empty; expected a path or URL (an unset variable?)")
        refuse_secrets(name, path)
    book = book_of(config.pricing)
    row_defaults(config)
    refuse_secrets("budget.store", config.budget.store or "")
    check_project(config.budget)
    output = absolute(config.output.path)
    name = config.job.name or output.rstrip("/").rsplit("/", 1)[-1] or "job"
    return replace(
        config,
        input=replace(config.input, path=absolute(config.input.path)),
        output=replace(config.output, path=output),
        model=replace(config.model, path=plain_source(config.model.path)),
        job=replace(config.job, name=name),
        pricing=replace(config.pricing, currency=book.currency),
        budget=with_absolute_store(config.budget),
    )


def run(overrides: Sequence[str], console: Console | None = None) -> JobResult:
    """Start a new job and work on it until it ends.

    Args:
        overrides: Hydra overrides, ``key=value``.
        console: where progress goes; standard error by default.

    Raises:
        ConfigError, InputError: nothing was started.
        CoordinatorLost, NoWorkers: the run ended before the job did; it can be resumed.
    """
    maker = settle(refuse_passed(prepare(overrides)))
    config = maker.config
    with nothing_started():
        store = Store.of(config, patience_s=LOOK_S)
        check_claimable(store, config)
        store.probe()
        planned = make_plan(config, store)
        if config.input.unique_ids:
            check_unique_ids(config, planned.inputs, store)
    for warning in planned.warnings:
        log.warning("%s", warning, extra={"event": "plan_warning"})
    log.info("engine %s", maker.engine_line, extra={"event": "engine_chosen"})
    job = JobRecord(
        config=config,
        digest=config.digest(),
        version=version(),
        model_revision=maker.model_revision,
        created_at=utc_now(),
    )
    patient = store.with_patience(config.storage.patience_s)
    book = book_of(config.pricing)
    quote = remembered_quote(job, planned.rows)

    def claim() -> None:
        write_job(patient, job)
        with resumable(config):
            write_plan(patient, planned.inputs, planned.shards)
            if quote is not None:
                write_quote(patient, quote)

    console = console or Console(stderr=True)
    return execute(job, patient, console, book, shards=planned.shard_count, claim=claim)


def run_or_resume(overrides: Sequence[str], console: Console | None = None) -> JobResult:
    """Start a job, or go on with it where an earlier start got so far.

    For whoever starts it anew without being asked when it is lost with its machine.

    Args:
        overrides: as of ``run``. Of a job that is there, where it runs and what that costs count;
            of one that is finished the costs stay as they are.

    Raises:
        OutputTaken: the output holds another job.
        Cancelled: somebody cancelled it, which holds until that is taken back.
    """
    asked = prepare(overrides)
    with nothing_started():
        store = Store.of(asked, patience_s=LOOK_S)
        there = find_job(store)
    if there is None:
        return run(overrides, console)
    if asked.model.revision is None and asked.model.path == there.config.model.path:
        # the job keeps the commit it began with
        pinned = replace(asked.model, revision=there.config.model.revision)
        asked = replace(asked, model=pinned)
    if settle(asked).config.digest() != there.digest:
        raise output_taken(store, "")
    log.info("the job is there; going on with it", extra={"event": "resumed"})
    with nothing_started():
        over = is_finished(store, generation(store))
        if not over:
            refuse_cancelled(store)
    kept = keys_taken(overrides, finished=over)
    return resume(asked.output.path, kept, console)


def resume(output: str, overrides: Sequence[str] = (), console: Console | None = None) -> JobResult:
    """Go on with a job that was stopped, with as many workers as asked for now.

    Raises:
        OutputMissing: no job lives there.
        OutputTaken: another run is at work on it.
        ConfigError: prices or caps for a job that is finished, so that no run begins.
        InputChanged: an input file differs from the one that was planned.
        ModelUnusable: the model is not the one that the job began with.
    """
    job, store = open_job(output, overrides)
    store = store.with_patience(job.config.storage.patience_s)
    if not (store.exists(layout.PLAN_SHARDS) and store.exists(layout.PLAN_INPUTS)):
        planned = make_plan(job.config, store)
        write_plan(store, planned.inputs, planned.shards)
    number = generation(store)
    if is_finished(store, number):
        refuse_run_keys(store, overrides)
        log.info("this job is finished; nothing was left to do", extra={"event": "finished"})
        plan = PlanReader(store)
        sweep(store, plan)
        return result_of(job, _looked_at(store, job, plan, number))
    _check_same_world(job, store)
    book = next_book(job, store, overrides)
    after = refuse_company(store)
    plan = PlanReader(store)
    refuse_spent(job, store, plan, book)
    console = console or Console(stderr=True)
    return execute(job, store, console, book, shards=plan.shards, after=after)


def retry(output: str, overrides: Sequence[str] = (), console: Console | None = None) -> JobResult:
    """Release the quarantined rows of a finished job and work on them again.

    Raises:
        OutputTaken: the job is not finished yet, or another run or retry is at work on it.
        ConfigError: prices or caps where no row is quarantined, so that no run begins.
    """
    job, store = open_job(output, overrides)
    number = generation(store)
    if not is_finished(store, number):
        raise OutputTaken(
            f"{output} is not finished; first 'imagemill resume {shlex.quote(output)}', then retry"
        )
    _check_same_world(job, store)
    book = next_book(job, store, overrides)
    after = refuse_company(store)
    store = store.with_patience(job.config.storage.patience_s)
    plan = PlanReader(store)
    refuse_spent(job, store, plan, book)
    shards = tuple(
        state.shard_id
        for state in states(store, plan, Settled.of(store).maybe_quarantined(range(plan.shards)))
        if any(c.quarantine and c.commit.quarantined for c in state.commits)
    )
    if not shards:
        refuse_run_keys(store, overrides)
        log.info("no row is quarantined; nothing to retry", extra={"event": "nothing_to_retry"})
        return result_of(job, _looked_at(store, job, plan, number))
    tell_hopeless(store, plan)

    def claim() -> None:
        open_retry(store, shards, after=number)

    console = console or Console(stderr=True)
    return execute(job, store, console, book, shards=plan.shards, after=after, claim=claim)


def report(output: str, overrides: Sequence[str] = ()) -> list[str]:
    """Write reports and worker ledger of a job anew, finished or not; returns where they lie.

    Of an unfinished job there may be none: the log says why they could not be written.

    Raises:
        OutputMissing: no job lives there.
        ConfigError: prices or caps are given, as if a run began.
    """
    job, store = look_at_job(output, overrides)
    found = _looked_at(store, job, PlanReader(store), generation(store))
    return [store.path(key) for key in found.written]


def _looked_at(store: Store, job: JobRecord, plan: PlanReader, number: int) -> Finish:
    """What the job holds, without a run."""
    return finish(store, job, plan, generation=number, end=None, wall_s=0.0)


def check_claimable(store: Store, config: RunConfig) -> None:
    """Refuse an output that holds a job or anything else.

    Raises:
        OutputTaken: what was found there.
    """
    if find_job(store) is not None:
        raise output_taken(store, config.digest())
    visible = [e.key for e in store.listing("") if not e.key.startswith(".")]
    folders = [f for f in store.folders("") if not f.startswith(".") and f != "plan"]
    found = sorted(visible + folders)
    if found:
        raise OutputTaken(
            f"output.path {store.url} is not empty and holds no job "
            f"(found {', '.join(found[:3])}); nothing was changed; choose a new folder"
        )


def _check_same_world(job: JobRecord, store: Store) -> None:
    """The model and the input are what the job began with."""
    found = revision_now(job.config)
    if found != job.model_revision:
        triton = job.config.engine.name == "triton"
        where = job.config.triton.url if triton else job.config.model.path
        raise ConfigError(
            f"the model at {where} has revision {found}; this job began with "
            f"{job.model_revision}; put the same model back or start a new job"
        )
    check_inputs_unchanged(PlanReader(store), InputFiles.of(job.config, store))
