"""A quote from start to end: count the job, try a few rows or remember, price it.

Writes nothing to the output path, which is not even looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random

from cluster.cell_values import plain_values
from cluster.cores import usable_cores
from cluster.input_files import InputFiles
from cluster.nodes import Node, Shape
from cluster.pricing import Machine, best_entries, entry_for, machine_of, storage_for
from cluster.reader import KNOWN
from cluster.server_price import server_billing, server_machine
from cluster.store_access import is_local
from conf.errors import ConfigError, InputError, RowRejected
from conf.price_book import InstancePrice, PriceBook, book_of
from conf.schema import RunConfig
from jobs import rates
from jobs.maker import settle
from jobs.measured import device_name, gpu_count, is_cpu, rate_key
from jobs.plan import PlannedJob, make_plan
from jobs.quote.earlier import Earlier, newest_alike
from jobs.quote.estimate import Crew, Size, Work, by_pilot, by_rates
from jobs.quote.kept import KeptOffer, KeptQuote, remember_quote
from jobs.quote.notes import capped_by, earlier_by, held_by, measured_by, priced_by
from jobs.quote.offers import Asked, Kept, Offer, offers
from jobs.quote.pilot import Pilot, run_pilot
from jobs.quote.servers import pilot_through_servers, refuse_remembered, served_by
from jobs.quote.strata import Strata, Stratum
from jobs.run import prepare
from jobs.scan import scan_input
from operators.engines import load_engine
from operators.guidance import guidance_passes, has_two_pass_guidance
from operators.request import parse_row
from operators.row_defaults import row_defaults

PILOT_SECONDS = 120.0
_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a job would come to. ``pilot`` is None where only remembered rates were used, those of
    ``earlier``, whose spread is in the interval; ``notes`` are for people."""

    asked_at: datetime
    config: RunConfig
    revision: str
    device: str
    rows: int
    rejected: int
    images: int
    strata: int
    sizes: int
    pilot: Pilot | None
    earlier: Earlier
    work: Work
    crew: Crew
    offers: tuple[Offer, ...]
    notes: tuple[str, ...]
    currency: str


def quote(
    overrides: Sequence[str],
    *,
    remembered: bool = False,
    pilot_seconds: float = PILOT_SECONDS,
) -> Quote:
    """Answer what a job would take and cost, and remember the answer for after the job.

    Args:
        remembered: try nothing, take the rates of earlier runs on this machine.
        pilot_seconds: about how long rows may be tried, after loading.

    Raises:
        ConfigError, InputError: what is wrong with the words, the model or the input; nothing can
            be made; or there is nothing to tell a time from.
    """
    if not 0 < pilot_seconds < float("inf"):
        raise ConfigError(
            f"--pilot-seconds is {pilot_seconds:g}; expected a number of seconds above 0"
        )
    config = prepare(overrides)
    if remembered and config.engine.name == "triton":
        refuse_remembered()
    maker = settle(config)
    config = maker.config
    planned = make_plan(config, None)
    strata, rejected = _count(config, planned)
    if not strata.stocks:
        raise InputError(
            f"nothing can be quoted: no row of {config.input.path} can become an image; "
            "'imagemill plan' with the same keys says why"
        )
    earlier = newest_alike(rates.earlier_runs(rate_key(config, maker.model_revision)))
    pilot = None if remembered else _pilot(config, strata, pilot_seconds)
    work = _work(strata, pilot, earlier.rates)
    if work is None:
        raise ConfigError(
            "no run of this model with this engine was measured on this machine yet; leave "
            "--remembered out to try a few rows"
        )
    book = book_of(config.pricing)
    asked = _asked(config, planned, strata, pilot, work, book)
    now = datetime.now(UTC)
    offered = tuple(offers(book, asked))
    found = Quote(
        asked_at=now,
        config=config,
        revision=maker.model_revision,
        device=_device(config),
        rows=planned.rows,
        rejected=rejected,
        images=asked.kept.images,
        strata=len(strata.stocks),
        sizes=len(strata.sizes()),
        pilot=pilot,
        earlier=earlier,
        work=work,
        crew=asked.crew,
        offers=offered,
        notes=(
            *capped_by(config, book.currency, offered),
            *priced_by(config, book, asked, pilot, now),
            *held_by(config.job.deadline, asked, now),
            *measured_by(asked.work, pilot),
            *(served_by(config) if asked.servers else earlier_by(pilot, earlier, now)),
        ),
        currency=book.currency,
    )
    remember_quote(_kept(found))
    return found


def _kept(found: Quote) -> KeptQuote:
    """What of a quote is held against the job later."""
    billing = server_billing(found.config)
    return KeptQuote(
        asked_at=found.asked_at.isoformat(timespec="seconds"),
        digest=found.config.digest(),
        model_revision=found.revision,
        rows=found.rows,
        tried=found.pilot.tried if found.pilot else 0,
        earlier=len(found.earlier.used),
        servers=billing.value if billing else None,
        currency=found.currency,
        offers=tuple(
            KeptOffer(
                name=offer.name,
                instance_type=offer.entry.instance_type,
                nano_per_hour=offer.nano_per_hour,
                workers=offer.workers,
                seconds=offer.seconds,
                cost=offer.cost,
                paid=offer.paid if offer.devices else None,
            )
            for offer in found.offers
            if offer.nano_per_hour is not None and offer.seconds and offer.cost
        ),
    )


def _count(config: RunConfig, planned: PlannedJob) -> tuple[Strata, int]:
    """All rows by stratum, and how many rows are rejected."""
    strata, rejected = Strata(Random(_SEED)), 0
    defaults = row_defaults(config)
    twice = has_two_pass_guidance(config.model)
    files = InputFiles.of(config, None)
    for scanned in scan_input(planned.inputs, KNOWN, config.input.columns, files.open):
        if scanned.problem is not None:
            rejected += scanned.rows
            continue
        values = {name: plain_values(item, name) for name, item in scanned.columns.items()}
        for offset in range(scanned.rows):
            row = {name: column[offset] for name, column in values.items()}
            try:
                found = parse_row(row, row_id=scanned.first_row_id + offset, defaults=defaults)
            except RowRejected:
                rejected += 1
                continue
            request = found[0]
            stratum = Stratum(
                width=request.width,
                height=request.height,
                steps=request.steps,
                passes=guidance_passes(request.guidance_scale, two_pass_guidance=twice),
                sampler=request.sampler,
            )
            weight = rates.weighted_steps(
                sampler=stratum.sampler, steps=stratum.steps, passes=stratum.passes
            )
            work = float(weight * stratum.width * stratum.height * len(found))
            strata.add(stratum, request, len(found), work)
    return strata, rejected


def _device(config: RunConfig) -> str:
    """What was measured."""
    return config.triton.url or "" if config.engine.name == "triton" else device_name()


def _pilot(config: RunConfig, strata: Strata, limit_s: float) -> Pilot:
    if config.engine.name == "triton":
        return pilot_through_servers(config, strata, limit_s=limit_s, random=Random(_SEED))
    if config.model.needs_gpu and is_cpu(device_name()) and config.engine.runs_a_model:
        raise ConfigError(
            f"model {config.model.name} needs a GPU (model.needs_gpu) and this machine has none, "
            "so that no row can be tried here; ask for the quote on a machine like the workers'"
        )
    with _threads_of_a_worker(config):
        return run_pilot(
            strata,
            lambda: load_engine(config.engine, config.model),
            config.output,
            limit_s=limit_s,
            random=Random(_SEED),
        )


@contextmanager
def _threads_of_a_worker(config: RunConfig) -> Iterator[None]:
    """torch reads this when it is loaded: workers share the cores of the machine they are on."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = str(_threads(config))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _work(strata: Strata, pilot: Pilot | None, earlier: Sequence[float]) -> Work | None:
    if pilot is not None:
        return by_pilot(pilot.sizes, earlier)
    return by_rates(sum(stock.pixel_steps for stock in strata.stocks.values()), earlier)


def _threads(config: RunConfig) -> int:
    """Of a worker on this machine, or on one like it that an autoscaler adds."""
    cpus, workers = usable_cores(), _workers(config)
    if config.cluster.address == "local":
        return max(1, cpus // workers)
    if not config.cluster.autoscaled:
        return cpus
    gpus, wished = float(gpu_count()), config.cluster.gpus_per_worker
    here = Node(node_id="", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus)
    shape = Shape(gpus=float(gpus > 0) if wished is None else wished)
    return here.threads_each(shape, at_most=workers)


def _workers(config: RunConfig) -> int:
    return config.cluster.workers or config.cluster.max_workers or config.cluster.min_workers


def _asked(
    config: RunConfig,
    planned: PlannedJob,
    strata: Strata,
    pilot: Pilot | None,
    work: Work,
    book: PriceBook,
) -> Asked:
    pixels = sum(s.images * k.width * k.height for k, s in strata.stocks.items())
    served = config.engine.name == "triton"
    sizes: tuple[Size, ...] = pilot.sizes if pilot else ()
    return Asked(
        work=work,
        crew=Crew(
            workers=1 if served else min(_workers(config), max(1, planned.shard_count)),
            shards=planned.shard_count,
            load_s=pilot.load_s if pilot else 0.0,
            stretch=pilot.stretch if pilot else 1.0,
        ),
        sizes=sizes,
        kept=Kept(
            images=sum(stock.images for stock in strata.stocks.values()),
            image_bytes=pilot.bytes_per_pixel * pixels if pilot else None,
            months=config.pricing.storage_months,
            apart=config.output.format == "files",
            commit_images=config.job.commit_images,
            commit_s=config.job.commit_seconds,
            price=storage_for(book, config.output.path),
            local=is_local(config.output.path),
        ),
        here=_here(config, book),
        tied=_tied(config, book),
        gpus=1.0 if served else config.cluster.gpus_per_worker,
        threads=None if served else _threads(config),
        node=(0.0, 0.0)
        if served
        else (float(gpu_count()), float(max(usable_cores(), _workers(config)))),
        servers=server_billing(config),
        devices=pilot.devices if served and pilot else 0,
    )


def _here(config: RunConfig, book: PriceBook) -> InstancePrice | None:
    """The entry of the machine that is measured."""
    found = entry_for(book, _this_machine(config), datetime.now(UTC))
    return None if isinstance(found, str) else found


def _tied(config: RunConfig, book: PriceBook) -> tuple[int, ...]:
    """The numbers of several entries that hold alike for the machine that measures."""
    best = best_entries(book, _this_machine(config))
    return tuple(book.instances.index(entry) + 1 for entry in best) if len(best) > 1 else ()


def _this_machine(config: RunConfig) -> Machine:
    """What is known of the machine that is measured: of Triton servers, theirs. What ``pricing.*``
    says of nodes is said of this machine only where the workers are on it."""
    if config.engine.name == "triton":
        return server_machine(config)
    if config.cluster.address != "local":
        config = replace(
            config,
            cluster=replace(config.cluster, address="local"),
            pricing=replace(
                config.pricing,
                provider=None,
                region=None,
                instance_type=None,
                purchase_option=None,
            ),
        )
    return machine_of(config, {}, os.environ)
