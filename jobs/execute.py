"""One run of a job on a cluster, from the first worker to the summary."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version

from rich.console import Console

from cluster.backlog import backlog
from cluster.coordinator import Snapshot
from cluster.crew import Assignment
from cluster.input_files import InputFiles
from cluster.job_log import (
    JobRecord,
    generation,
    open_run,
    read_retry,
    run_opened,
    write_run_end,
)
from cluster.plan_file import PlanReader
from cluster.ray_session import Resources, ray_session, resources
from cluster.records import RunRecord
from cluster.settled import Settled
from cluster.store import Store
from cluster.supervisor import RunEnd, Supervisor
from conf.alert_target import check_command
from conf.errors import (
    CommitUnknown,
    CoordinatorLost,
    ImageMillError,
    NoWorkers,
    StoreDenied,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from conf.price_book import PriceBook
from conf.schema import RunConfig
from conf.secrets import without_secrets
from jobs.aim import aim_of
from jobs.alerts import BudgetAlerts
from jobs.compile_choice import (
    CompileChoice,
    JobSize,
    choose_compile,
    remember_compilation,
)
from jobs.control import SignalControl
from jobs.crew_news import CrewNews
from jobs.engine_news import EngineNews
from jobs.figures import plural
from jobs.finish import Finish, finish
from jobs.measured import remember_rate
from jobs.presence import Presence
from jobs.preview import make_preview
from jobs.progress import ProgressDisplay
from jobs.project import check_records
from jobs.project_purse import Purse, project_purse
from jobs.spending import capped, caps_of, refuse_too_small, settled
from operators.guidance import has_two_pass_guidance
from operators.row_defaults import row_defaults

log = logging.getLogger("imagemill")
_SAMPLED_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a command on a job ended; ``status`` is the exit status of the design."""

    status: int
    job: JobRecord
    finish: Finish


def version() -> str:
    """ImageMill's version."""
    return package_version("imagemill")


def nothing_to_claim() -> None:
    """The job has its output already."""


def execute(
    job: JobRecord,
    store: Store,
    console: Console,
    book: PriceBook,
    *,
    shards: int,
    after: int = 0,
    claim: Callable[[], None] = nothing_to_claim,
) -> JobResult:
    """Work on a job until it ends or is stopped, then sum up.

    Args:
        book: what its workers cost.
        shards: how many the plan has.
        after: the last run so far; another driver that begins the next one first wins.
        claim: writes a new job and its plan, once the cluster and the budgets are known to fit.

    Raises:
        ConfigError: the cluster cannot run this, or a budget is too small or cannot be kept;
            nothing was claimed.
        KeyboardInterrupt: stopped before anything was claimed.
        CoordinatorLost, NoWorkers, StoreDenied: the run ended before the job did; it can be
            resumed.
    """
    started_s = time.monotonic()
    if job.config.budget.alert is not None:
        check_command(job.config.budget.alert)
    check_records(job, store)
    _say_where(job.config.cluster.address)
    with SignalControl(_say) as control, ray_session(job.config):
        control.install()
        size = resources(job.config)
        if not after:
            refuse_too_small(job.config, book, size, shards)
        if control.drain and claim is not nothing_to_claim:
            raise KeyboardInterrupt("nothing was started")
        with project_purse(job, store, book, size, shards=shards, after=after) as purse:
            claim()
            with resumable(job.config):
                return _run(job, store, book, size, control, console, after, started_s, purse)


def _run(
    job: JobRecord,
    store: Store,
    book: PriceBook,
    size: Resources,
    control: SignalControl,
    console: Console,
    after: int,
    started_s: float,
    purse: Purse | None,
) -> JobResult:
    """Work on a claimed job and sum up."""
    plan = PlanReader(store)
    number = generation(store)
    shards = read_retry(store, number).shards if number else None
    rows = plan.rows if shards is None else plan.rows_of(shards)
    workers = min(size.workers, plan.shards if shards is None else len(shards))
    config = _decided(job, store, plan, workers)
    record = open_run(
        store,
        after=after,
        generation=number,
        workers=size.workers,
        version=version(),
        config=job.config,
        book=book,
    )
    crew_size = "workers as machines come" if size.grows else plural(workers, "worker")
    _announce(job, _extent(plan, rows, shards, number), crew_size)
    assignment = Assignment(
        run=record.run,
        generation=number,
        model_revision=job.model_revision,
        total=plan.shards,
        shards=shards,
        book=book,
        settled=settled(job, store, plan),
        allowance=purse.allowance if purse else None,
        aim=aim_of(job, store, plan, book, size, generation=number, resumed=bool(after)),
    )
    supervisor = Supervisor(config, assignment, size)
    news = EngineNews(config)
    alerts = BudgetAlerts(job, caps_of(job), assignment.settled)
    with Presence(job.config, record) as presence, _display(job, rows, console) as display, alerts:
        control.watch(presence.stop_reason)
        crew = CrewNews(job, size, presence)

        def show(snapshot: Snapshot) -> None:
            news.show(snapshot)
            crew.show(supervisor.staffing)
            display.show(snapshot)
            alerts.see(snapshot)
            if purse is not None and (allowance := purse.see(snapshot)) is not None:
                supervisor.allow(allowance)

        end = _supervise(store, record, lambda: supervisor.run(control, show))
    control.summing_up()
    ended = finish(
        store,
        job,
        plan,
        generation=number,
        end=end,
        wall_s=time.monotonic() - started_s,
        ours=not run_opened(store, record.run + 1),
    )
    try:
        ran = remember_compilation(config, job.model_revision, end.snapshot.engines)
        devices = {engine.device for engine in end.snapshot.engines}
        remember_rate(store, replace(job, config=ran), plan, devices)
    except ImageMillError as error:
        log.debug("the rate is not remembered: %s", error, extra={"event": "rate_unknown"})
    return result_of(job, ended)


def _decided(job: JobRecord, store: Store, plan: PlanReader, workers: int) -> RunConfig:
    """The configuration for the workers: ``engine.compile`` is decided by what is left to do."""
    config = job.config
    if config.engine.compile != "auto":
        return config
    try:
        choice = choose_compile(
            config, job.model_revision, lambda: _size_left(job, store, plan, workers)
        )
    except ImageMillError as error:
        choice = CompileChoice(how="off", why=f"off: the job's size cannot be told: {error}")
    log.info("compile: %s", choice.why, extra={"event": "compile_choice"})
    return replace(config, engine=replace(config.engine, compile=choice.how))


def _size_left(job: JobRecord, store: Store, plan: PlanReader, workers: int) -> JobSize:
    """About what is left, from the first rows and the shards that no checkpoint settles."""
    preview = make_preview(
        plan.inputs(),
        job.config.input.columns,
        row_defaults(job.config),
        InputFiles.of(job.config, store).open,
        two_pass_guidance=has_two_pass_guidance(job.config.model),
        most_rows=_SAMPLED_ROWS,
    )
    left = backlog(Settled.of(store), total=plan.shards, shards=None)
    share = 1 - left.sealed / max(1, left.total)
    return JobSize.of(preview, job.config, rows=round(plan.rows * share), workers=workers)


@contextmanager
def resumable(config: RunConfig) -> Iterator[None]:
    """What ends a job that was claimed says how to go on. A store that refuses now had allowed
    the claim: its error no longer means that nothing was started."""
    where = shlex.quote(without_secrets(config.output.path))
    how = f"what is committed counts; go on with: imagemill resume {where}"
    try:
        yield
    except (CoordinatorLost, NoWorkers) as error:
        raise type(error)(f"{error}; {how}") from error
    except StoreRefused as error:
        raise StoreDenied(f"{error}; {how}") from error


def _supervise(store: Store, record: RunRecord, work: Callable[[], RunEnd]) -> RunEnd:
    """Run and record the end, so that others know that nobody is at work."""
    try:
        end = work()
    except (CoordinatorLost, NoWorkers) as error:
        _record_end(store, record, str(error))
        raise
    _record_end(store, record, "finished" if end.finished else end.reason)
    return end


def _record_end(store: Store, record: RunRecord, reason: str) -> None:
    """A hint for others; a store that cannot take it must not hide why the run ended."""
    try:
        write_run_end(store, record.run, reason)
    except (CommitUnknown, StoreFull, StoreUnavailable, StoreRefused) as error:
        log.debug("the run's end is not recorded: %s", error, extra={"event": "end_unrecorded"})


def _say(text: str) -> None:
    log.warning("%s", text, extra={"event": "signal"})


def _say_where(address: str) -> None:
    """Starting Ray takes seconds, in which nothing else is said."""
    where = (
        "starting Ray on this machine" if address == "local" else f"connecting to Ray: {address}"
    )
    log.info("%s", where, extra={"event": "connecting"})


def _extent(plan: PlanReader, rows: int, shards: Sequence[int] | None, number: int) -> str:
    """How much there is to work on; a retry has some ``shards``, in which most rows may be done."""
    whole = plural(plan.shards, "shard")
    if shards is None:
        return f"{plural(rows, 'row')}, {whole}"
    return f"retry {number}: {plural(rows, 'row')} in {len(shards)} of {whole}"


def _announce(job: JobRecord, what: str, workers: str) -> None:
    log.info(
        "job '%s': %s, %s%s",
        job.config.job.name,
        what,
        workers,
        ", SIMULATED engine" if job.config.engine.name == "simulated" else "",
        extra={"event": "run_started"},
    )


def _display(job: JobRecord, rows: int, console: Console) -> ProgressDisplay:
    return ProgressDisplay(
        console,
        rows=rows,
        currency=job.currency,
        simulated=job.config.engine.name == "simulated",
        capped=capped(job),
    )


def result_of(job: JobRecord, finished: Finish) -> JobResult:
    """The exit status that a job's state means."""
    if not finished.finished:
        return JobResult(status=3, job=job, finish=finished)
    totals = finished.totals
    allowed = job.config.job.max_quarantined * totals.rows
    good = totals.quarantined <= allowed and not finished.broken_files
    return JobResult(status=0 if good else 1, job=job, finish=finished)
