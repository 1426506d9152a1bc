"""What a job has cost so far, against what it may cost."""

from __future__ import annotations

import logging
import shlex

from cluster.budget import Caps, Spent, leave_s, reserve_of
from cluster.job_log import JobRecord, last_run
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.totals import Bill, Totals, close, fold
from conf.errors import BudgetSpent, ConfigError
from conf.price_book import PriceBook
from conf.secrets import without_secrets
from jobs.figures import unpriced

log = logging.getLogger("imagemill")
_HOURS_INSTEAD = "budget.max_cost=null budget.max_hours=…"
"""How to go on with workers that have no price: all count in hours."""


def caps_of(job: JobRecord) -> Caps:
    """The caps of a job."""
    return Caps.of(job.config.budget, job.currency)


def settled(job: JobRecord, store: Store, plan: PlanReader) -> Spent:
    """What earlier runs came to; not even looked at where nothing is capped. Keeping the images is
    no part of it: that is charged after the job."""
    return _spent(fold(store, plan)) if caps_of(job).any else Spent()


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
    if len(book.instances) != 1 or book.instances[0].gpus or book.instances[0].vcpus:
        return None
    return book.instances[0].nano_per_hour


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
    key, capped, _ = reason.split(maxsplit=1)[0].partition("=")
    return f" {key}=…" if capped else f" {_HOURS_INSTEAD}"


def _crew(job: JobRecord, store: Store) -> int:
    """How many workers the next run would have: as asked, or as many as the last one."""
    last = last_run(store)
    return job.config.cluster.workers or (last.workers if last else 1)


def _spent(totals: Totals) -> Spent:
    return spent_by(close(totals, 0))


def spent_by(bill: Bill) -> Spent:
    """What of a bill counts against the caps: all but keeping the images."""
    return Spent(nano=bill.total_amount - bill.amount.get("storage", 0), ns=bill.total_ns)
