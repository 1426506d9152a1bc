"""What a job has cost so far, against what it may cost."""

from __future__ import annotations

import logging
import os
import shlex
from datetime import UTC, datetime

from cluster.budget import Caps, Spent, leave_s, reserve_of
from cluster.job_log import JobRecord, last_run
from cluster.plan_file import PlanReader
from cluster.pricing import Takes, machine_of, price_on
from cluster.ray_session import Resources
from cluster.store import Store
from cluster.totals import Bill, Totals, close, fold
from conf.errors import BudgetSpent, ConfigError
from conf.price_book import PriceBook
from conf.schema import RunConfig
from conf.secrets import without_secrets
from jobs.figures import plural, unpriced

log = logging.getLogger("imagemill")
_HOURS_INSTEAD = "budget.max_cost=null budget.max_hours=…"
"""How to go on with workers that have no price: all count in hours."""
_PROJECT_HOURS_INSTEAD = "budget.project_max_cost=null budget.project_max_hours=…"


def caps_of(job: JobRecord) -> Caps:
    """The caps of a job."""
    return Caps.of(job.config.budget, job.currency)


def project_caps(job: JobRecord) -> Caps:
    """The caps of the job's project, as this job is configured."""
    return Caps.of_project(job.config.budget, job.currency)


def capped(job: JobRecord) -> bool:
    """Whether anything is capped."""
    return caps_of(job).any or project_caps(job).any


def settled(job: JobRecord, store: Store, plan: PlanReader) -> Spent:
    """What earlier runs came to; not even looked at where nothing is capped. Keeping the images is
    no part of it: that is charged after the job."""
    return _spent(fold(store, plan)) if capped(job) else Spent()


def refuse_too_small(config: RunConfig, book: PriceBook, size: Resources, shards: int) -> None:
    """Before the first run: could its workers do anything before they would have to leave?

    What a machine costs that only its own node knows is left to the run.

    Raises:
        ConfigError: a cap is no more than what is kept for the workers to leave in order.
    """
    caps = Caps.of(config.budget, book.currency)
    workers = min(size.workers, max(1, shards))
    seconds = leave_s(config)
    reserved = reserve_of(expected_price(config, book, size), seconds, workers=workers)
    why = caps.too_small(reserved, plural(workers, "worker"))
    if why:
        raise ConfigError(
            f"{why}, within {seconds:g} s each (job.commit_seconds and two cluster.heartbeat_s); "
            "nothing was started; give more, or fewer cluster.workers, or a smaller "
            "job.commit_seconds"
        )


def expected_price(config: RunConfig, book: PriceBook, size: Resources) -> int | None:
    """What an hour of a worker costs, before there is any; None where only its node can tell."""
    price = _one_price(book)
    if price is not None or config.cluster.address != "local" or size.largest is None:
        return price
    takes = Takes(
        gpus=size.shape.gpus,
        threads=size.threads_on(size.largest),
        node_gpus=size.largest.gpus,
        node_cpus=size.largest.cpus,
    )
    machine = machine_of(config, {}, os.environ)
    return price_on(book, machine, takes, at=datetime.now(UTC)).nano_per_hour


def refuse_spent(job: JobRecord, store: Store, plan: PlanReader, book: PriceBook) -> None:
    """Before another run, which ``book`` prices: is there anything left for it?

    Raises:
        BudgetSpent: a cap is used, or what is left of it would have the workers leave at once.
        ConfigError: what earlier runs cost is not known, so that no cap on costs can be kept.
    """
    caps = caps_of(job)
    if not caps.any:
        return
    totals = fold(store, plan)
    stamps = [use.stamp for use in totals.workers.values() if use.stamp is not None]
    if not stamps:
        return
    where = shlex.quote(without_secrets(job.config.output.path))
    _check_known(caps, close(totals, 0), where)
    last = max(stamps, key=lambda stamp: stamp.started_at)
    price = _one_price(book)
    if price is None:
        price = last.price.nano_per_hour
    reserved = reserve_of(price, leave_s(job.config), workers=_crew(job, store))
    why = caps.exceeded(_spent(totals), reserved)
    if why:
        key = why.partition("=")[0]
        raise BudgetSpent(
            f"{why}; nothing was started; go on with: imagemill resume {where} {key}=…"
        )


def _one_price(book: PriceBook) -> int | None:
    """What a worker costs whatever it runs on, an hour; None where that depends on the machine."""
    if len(book.instances) != 1:
        return None
    entry = book.instances[0]
    return None if entry.gpus or entry.vcpus or entry.shared else entry.nano_per_hour


def _check_known(caps: Caps, bill: Bill, where: str) -> None:
    """Requests without a price end no run, so they refuse none: that they count nothing is said."""
    if caps.nano is None or not unpriced(bill):
        return
    if bill.unpriced:
        raise ConfigError(
            f"budget.max_cost cannot be kept, for earlier runs are not all priced: "
            f"{unpriced(bill)}; nothing was started; cap the hours instead, which count all "
            f"workers: imagemill resume {where} {_HOURS_INSTEAD}"
        )
    log.warning(
        "budget.max_cost does not count %s", unpriced(bill), extra={"event": "budget_unpriced"}
    )


def keys_to_go_on(reason: str) -> str:
    """What ``imagemill resume OUTPUT`` must be given after a run that ended for this reason."""
    if not reason.startswith("budget."):
        return ""
    key, given, _ = reason.split(maxsplit=1)[0].partition("=")
    if given:
        return f" {key}=…"
    return f" {_PROJECT_HOURS_INSTEAD if key.startswith('budget.project_') else _HOURS_INSTEAD}"


def _crew(job: JobRecord, store: Store) -> int:
    """How many workers the next run would have: as asked, or as many as the last one."""
    last = last_run(store)
    return job.config.cluster.workers or (last.workers if last else 1)


def _spent(totals: Totals) -> Spent:
    return spent_by(close(totals, 0))


def spent_by(bill: Bill) -> Spent:
    """What of a bill counts against the caps: all but keeping the images."""
    return Spent(nano=bill.total_amount - bill.amount.get("storage", 0), ns=bill.total_ns)
