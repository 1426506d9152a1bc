"""A small real job for tests: plan, store, coordinator, worker and simulated engine, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from cluster.coordinator import Coordinator
from cluster.job_log import JobRecord, find_job, last_run, open_run, write_job
from cluster.lifetime import utc_now
from cluster.plan_file import PlanReader, write_plan
from cluster.price import Price
from cluster.pricing import Takes, machine_of, price_on
from cluster.records import RunRecord
from cluster.server_price import server_billing
from cluster.store import Store
from cluster.totals import Bill, Totals, close, fold
from cluster.worker import Identity, Worker, WorkerOutcome
from conf.parser import parse_config
from conf.price_book import book_of
from conf.schema import RunConfig
from jobs.plan import make_plan
from operators.engines import engine_of

_SMALL = {
    "engine.simulated_speed": 0,
    "input.shard_rows": 4,
    "cluster.heartbeat_s": 0.05,
    "job.commit_seconds": 0,
    "storage.patience_s": 0,
    "pricing.currency": "USD",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallJob:
    """A job that ran, or nearly: ``outcomes`` are its workers'."""

    store: Store
    config: RunConfig
    plan: PlanReader
    job: JobRecord
    outcomes: tuple[WorkerOutcome, ...]

    def totals(self) -> Totals:
        """What counts now."""
        return fold(self.store, self.plan)

    def bill(self) -> Bill:
        """The closed ledger now."""
        return close(self.totals(), self.config.pricing.storage_months)


def small_config(tmp_path: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The shipped configuration with the simulated engine; ``overrides`` by dotted key."""
    conf = files("conf")
    composed = OmegaConf.create(conf.joinpath("config.yaml").read_text())
    del composed["defaults"]
    for group, name in (("model", "shapes"), ("engine", "simulated")):
        composed[group] = OmegaConf.create(conf.joinpath(group, f"{name}.yaml").read_text())
    places = {"input.path": str(tmp_path / "input"), "output.path": str(tmp_path / "output")}
    for key, value in {**places, "job.name": "small", **_SMALL, **(overrides or {})}.items():
        OmegaConf.update(composed, key, value, force_add=True)
    plain = OmegaConf.to_container(composed)
    assert isinstance(plain, dict)
    return parse_config({str(name): value for name, value in plain.items()})


def write_input(tmp_path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as ``input/rows.parquet``; no rows make an empty table with a prompt column."""
    folder = tmp_path / "input"
    folder.mkdir(parents=True, exist_ok=True)
    empty = pa.table({"prompt": pa.array([], pa.string())})
    table = pa.Table.from_pylist([dict(row) for row in rows]) if rows else empty
    pq.write_table(table, folder / "rows.parquet")


def prepare_small_job(
    tmp_path: Path, rows: Sequence[Mapping[str, Any]], **overrides: Any
) -> SmallJob:
    """Plan the job and claim its output; nothing is made yet."""
    write_input(tmp_path, rows)
    config = small_config(tmp_path, overrides)
    store = Store.of(config)
    planned = make_plan(config, store)
    job = JobRecord(
        config=config,
        digest=config.digest(),
        version="0.0.0",
        model_revision="simulated",
        created_at=utc_now(),
    )
    write_job(store, job)
    write_plan(store, planned.inputs, planned.shards)
    return SmallJob(store=store, config=config, plan=PlanReader(store), job=job, outcomes=())


def begin_run(store: Store, *, generation: int = 0, config: RunConfig | None = None) -> RunRecord:
    """The next run's record."""
    last = last_run(store)
    return begin_run_after(store, last.run if last else 0, generation=generation, config=config)


def begin_run_after(
    store: Store, after: int, *, generation: int = 0, config: RunConfig | None = None
) -> RunRecord:
    """The record of the run that follows number ``after``."""
    job = find_job(store)
    config = config or (job.config if job else small_config(Path("nowhere")))
    return open_run(
        store,
        after=after,
        generation=generation,
        workers=1,
        version="0.0.0",
        config=config,
        book=book_of(config.pricing),
    )


def price_here(config: RunConfig) -> Price:
    """What a worker on this machine costs."""
    takes = Takes(gpus=0, threads=1)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return price_on(
        book_of(config.pricing), machine_of(config, {}, {}), takes, at=at, output=config.output.path
    )


def work_on(
    small: SmallJob, *, shards: Sequence[int] | None = None, generation: int = 0
) -> SmallJob:
    """One run with one worker over ``shards`` (default: all)."""
    config, store = small.config, small.store
    record = begin_run(store, generation=generation, config=config)
    ids = list(range(small.plan.shards) if shards is None else shards)
    coordinator = Coordinator(iter(ids), total=len(ids), lease_s=config.cluster.lease_s)
    closing = ExitStack()
    worker = Worker(
        config,
        Identity(
            worker=f"r{record.run:04d}-w0000",
            run=record.run,
            generation=generation,
            node="here",
            gpus="",
            price=price_here(config),
            servers=server_billing(config),
        ),
        store=store,
        shards=small.plan,
        link=coordinator,
        make_engine=lambda: engine_of(config, closing),
    )
    with closing:
        return replace(small, outcomes=(*small.outcomes, worker.run()))


def run_small_job(
    tmp_path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    shards: Sequence[int] | None = None,
    **overrides: Any,
) -> SmallJob:
    """Plan and run a job over ``rows``, to the end or over some ``shards`` only.

    Args:
        overrides: configuration by dotted key: ``**{"output.format": "parquet"}``.
    """
    small = work_on(prepare_small_job(tmp_path, rows, **overrides), shards=shards)
    assert small.outcomes[-1].error is None, small.outcomes[-1].message
    return small
