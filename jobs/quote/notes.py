"""What a quote does not know, and what it went by, in sentences. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from cluster.budget import Caps
from cluster.pricing import not_in_force
from conf.deadline import due
from conf.price_book import PriceBook
from conf.schema import RunConfig
from conf.secrets import without_secrets
from jobs.figures import number, plural
from jobs.quote.earlier import Earlier
from jobs.quote.estimate import Work, worker_seconds
from jobs.quote.offers import Asked, Offer
from jobs.quote.pilot import Pilot
from jobs.rates import this_host

OLD_DAYS = 30
"""A rate that was measured longer ago is told of."""


def priced_by(
    config: RunConfig, book: PriceBook, asked: Asked, pilot: Pilot | None, now: datetime
) -> Iterator[str]:
    """What of the price is not known."""
    why = not_in_force(book, now)
    if why:
        yield f"{why}: a run today would be unpriced, and no machine is known to be this one"
    elif asked.tied:
        whose = "this" if asked.servers is None else "the servers'"
        yield (
            f"entries {', '.join(map(str, asked.tied))} of the price book hold alike for {whose} "
            "machine, so that no speed is known for any; name more of it in the one that is meant"
        )
    elif asked.here is None and asked.servers is not None:
        yield (
            "the price book has no entry for the servers' machine, so that no speed is known for "
            "any; pricing.instance_type=… names it"
        )
    elif asked.here is None:
        yield (
            "the price book has no entry for this machine, so that no speed is known for any; "
            "pricing.instance_type=… names it where cluster.address=local, with pricing.region=… "
            "and pricing.purchase_option=… where the entry has them; IMAGEMILL_INSTANCE_TYPE "
            "elsewhere"
        )
    charged = config.pricing.storage_months or not asked.kept.local
    if charged and asked.kept.price is None:
        yield (
            f"no storage price for {without_secrets(config.output.path)} in the price book: "
            "keeping and requests are in no cost"
        )
    elif config.pricing.storage_months and pilot is None:
        yield "keeping the images is in no cost: how large they are is known after a pilot only"


def capped_by(config: RunConfig, currency: str, found: Sequence[Offer]) -> Iterator[str]:
    """Which offers come to more than what the job is capped at."""
    caps = Caps.of(config.budget, currency)
    known = [offer for offer in found if offer.cost is not None and offer.seconds is not None]
    above = [(offer, passed) for offer in known if (passed := _passed(caps, offer))]
    if above:
        keys = " and ".join(dict.fromkeys(key for _, passed in above for key in passed))
        which = above[0][0].name if len(known) == 1 else f"{len(above)} of {len(known)} offers"
        yield (
            f"{which}: the quote is above {keys}, so that the run would stop before its end "
            "(status 3); give more, or fewer rows"
        )


def _passed(caps: Caps, offer: Offer) -> list[str]:
    """The caps that the offer is above, by their keys."""
    assert offer.cost is not None
    assert offer.paid is not None
    passed = []
    if caps.nano is not None and offer.cost.middle - (offer.storage_nano or 0) > caps.nano:
        passed.append(caps.name("cost"))
    if caps.ns is not None and offer.paid.middle * 1e9 > caps.ns:
        passed.append(caps.name("hours"))
    return passed


def held_by(deadline: str | None, asked: Asked, now: datetime) -> Iterator[str]:
    """How many workers the deadline needs, at the slow end of the interval; nothing of Triton
    servers, which more workers make no faster."""
    if deadline is None or asked.servers is not None:
        return
    left_s = (due(deadline, now) - now).total_seconds()

    def holds(workers: int) -> bool:
        crew = replace(asked.crew, workers=workers)
        seconds = worker_seconds(asked.work, crew, asked.sizes)
        return (seconds.high or seconds.middle) <= left_s

    numbers = range(1, asked.crew.shards + 1)
    fewest = bisect_left(numbers, True, key=holds)
    enough = "no number of workers like this one holds it"
    if fewest < len(numbers):
        enough = f"about {plural(numbers[fewest], 'worker')} like this one would hold it"
    yield f"job.deadline={deadline}: {enough}; adding machines takes time besides"


def measured_by(work: Work, pilot: Pilot | None) -> Iterator[str]:
    """What of the time is not known."""
    if pilot is None:
        yield "starting up is in no time: it is known after a pilot only"
    elif pilot.failed:
        yield f"{pilot.failed} of {pilot.tried} tried rows became no image: {pilot.problem}"
    if work.untried:
        yield (
            f"{work.untried:.1%} of the work is of sizes that were not tried; it counts at "
            "the mean rate of the others"
        )


def earlier_by(pilot: Pilot | None, earlier: Earlier, now: datetime) -> Iterator[str]:
    """Which runs the time goes by, and what they leave open."""
    if earlier.left_out:
        yield _left_out(pilot, earlier)
    elif len(earlier.used) < 2:
        yield (
            "how runs on this machine differ from each other is not known (fewer than two were "
            "measured): the interval holds for a machine as busy as now"
        )
    hosts = earlier.elsewhere(this_host())
    if hosts:
        yield (
            f"the earlier runs were measured on another machine ({', '.join(hosts)}), whose device "
            "has the same name; none was on this one"
        )
    newest = earlier.days(now)[0] if earlier.used else 0
    if newest >= OLD_DAYS:
        what = "the interval" if pilot else "all that is told"
        yield (
            f"the newest of the earlier runs was {plural(newest, 'day')} ago: {what} goes by a "
            "machine as it was then"
        )


def _left_out(pilot: Pilot | None, earlier: Earlier) -> str:
    """Why older runs are left out, and what the quote goes by instead."""
    differ = (
        f"earlier runs on this machine differ: the fastest was {number(earlier.factor)} times as "
        "fast as the slowest"
    )
    if not earlier.torn:
        return (
            f"{differ}; only the newest {len(earlier.used)}, which agree, are used, and "
            f"{earlier.left_out} left out"
        )
    if pilot is None:
        return (
            f"{differ}, and the newest two are as far apart; the newest alone is used, so that no "
            "interval is known; leave --remembered out to try a few rows"
        )
    return (
        f"{differ}, and the newest two are as far apart; none is used: the interval is that of the "
        "pilot alone, and holds for a machine as busy as now"
    )
