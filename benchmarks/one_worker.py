"""One worker in this process: the real plan, store, coordinator and worker, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cluster.coordinator import Coordinator
from cluster.job_log import JobRecord, open_run, write_job
from cluster.lifetime import utc_now
from cluster.plan_file import PlanReader, write_plan
from cluster.price import Price
from cluster.pricing import Takes, machine_of, price_on
from cluster.store import Store
from cluster.worker import Identity, Worker
from conf.price_book import book_of
from conf.schema import RunConfig
from jobs.execute import version
from jobs.maker import settle
from jobs.plan import make_plan
from jobs.run import prepare
from operators.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A job whose output is claimed and planned; nothing is made yet."""

    config: RunConfig
    store: Store
    plan: PlanReader


def plan_job(settings: Sequence[str]) -> PlannedJob:
    """Claim and plan a job as ``imagemill run`` does; ``settings`` are ``key=value``."""
    maker = settle(prepare(settings))
    config = maker.config
    store = Store.of(config)
    planned = make_plan(config, store)
    job = JobRecord(
        config=config,
        digest=config.digest(),
        version=version(),
        model_revision=maker.model_revision,
        created_at=utc_now(),
    )
    write_job(store, job)
    write_plan(store, planned.inputs, planned.shards)
    open_run(
        store,
        after=0,
        generation=0,
        workers=1,
        version=version(),
        config=config,
        book=book_of(config.pricing),
    )
    return PlannedJob(config=config, store=store, plan=PlanReader(store))


def _price(config: RunConfig) -> Price:
    """What a worker on this machine costs."""
    machine, takes = machine_of(config, {}, {}), Takes(gpus=0, threads=1)
    return price_on(book_of(config.pricing), machine, takes, at=datetime.now(UTC))


def work_on(job: PlannedJob, make_engine: Callable[[], Engine], store: Store) -> None:
    """Let one worker make the whole job; it sees the output through ``store``.

    Raises:
        RuntimeError: the worker ended with an error.
    """
    ids = iter(range(job.plan.shards))
    worker = Worker(
        job.config,
        Identity(
            worker="r0001-w0000",
            run=1,
            generation=0,
            node="here",
            gpus="",
            price=_price(job.config),
        ),
        store=store,
        shards=job.plan,
        link=Coordinator(ids, total=job.plan.shards, lease_s=job.config.cluster.lease_s),
        make_engine=make_engine,
    )
    outcome = worker.run()
    if outcome.error is not None:
        raise RuntimeError(f"the worker ended with {outcome.error}: {outcome.message}")
