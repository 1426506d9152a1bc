"""A quote held against what the job came to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cluster.money import as_decimal
from cluster.totals import Bill, Totals
from jobs.figures import active_seconds, duration, format_money, plural
from jobs.quote.estimate import Interval
from jobs.quote.kept import KeptOffer, KeptQuote

VERDICTS = {True: "inside", False: "outside", None: "not compared"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of a quote and what it came to; ``inside`` the interval, None: not compared, as
    the spread was not known, or ``why`` says."""

    quoted: Interval
    came_to: float
    inside: bool | None
    why: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ends = {"quoted": self.quoted.middle, "low": self.quoted.low, "high": self.quoted.high}
        return {**ends, "came_to": self.came_to, "inside": self.inside}


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """``cost`` (1e-9 currency units), ``worker_seconds`` of all workers together and ``seconds`` in
    which any of them lived. Where the quote had no ``offer`` for the job's workers, ``why`` says so
    and nothing is compared."""

    quote: KeptQuote
    offer: KeptOffer | None
    workers: int
    cost: Measure | None = None
    worker_seconds: Measure | None = None
    seconds: Measure | None = None
    why: str = ""

    @property
    def asked(self) -> str:
        """When, and from what."""
        when = datetime.fromisoformat(self.quote.asked_at).astimezone(UTC)
        basis = (
            f"a pilot of {plural(self.quote.tried, 'image')}"
            if self.quote.tried
            else plural(self.quote.earlier, "earlier run")
        )
        return f"{when:%Y-%m-%d %H:%M} UTC, by {basis}"

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; amounts are decimal texts."""
        known = {"asked_at": self.quote.asked_at, "compared": self.offer is not None}
        if self.cost is None or self.worker_seconds is None or self.seconds is None:
            return {**known, "why": self.why}
        cost = self.cost.to_mapping()
        for name in ("quoted", "low", "high", "came_to"):
            cost[name] = None if cost[name] is None else f"{as_decimal(round(cost[name])):f}"
        return {
            **known,
            "cost": cost,
            "worker_seconds": self.worker_seconds.to_mapping(),
            "seconds": self.seconds.to_mapping(),
        }


def against(
    quote: KeptQuote | None, totals: Totals, closing: Bill, currency: str
) -> Against | None:
    """Hold a quote against an output; None where nothing was quoted.

    Of a job that is not finished there is what it came to so far, and no verdict.
    """
    if quote is None:
        return None
    found = Against(quote=quote, offer=None, workers=closing.workers)
    offer = _offer_for(quote, totals, closing, currency)
    if isinstance(offer, str):
        return replace(found, why=offer)
    unfinished = "the job is not finished" if totals.pending else ""
    apart = (
        f"quoted on {plural(offer.workers, 'worker')}, {closing.workers:,} worked"
        if offer.workers != closing.workers
        else ""
    )
    stamps = [use.stamp for use in totals.workers.values() if use.stamp is not None]
    return replace(
        found,
        offer=offer,
        cost=_measure(offer.cost, closing.total_amount, unfinished),
        worker_seconds=_measure(offer.paid_seconds, closing.total_ns / 1e9, unfinished),
        seconds=_measure(offer.seconds, active_seconds(stamps), unfinished or apart),
    )


def against_lines(found: Against | None, currency: str) -> list[str]:
    """The comparison for the terminal; nothing where nothing was quoted."""
    if found is None:
        return []
    if found.cost is None or found.worker_seconds is None:
        return [f"quoted     {found.asked}, but it cannot be compared: {found.why}"]
    cost, time = found.cost, found.worker_seconds
    return [
        f"quoted     {format_money(round(cost.quoted.middle), currency)} {cost.quoted.in_words()} "
        f"at {found.asked}; it came to {format_money(round(cost.came_to), currency)}: "
        f"{verdict(cost)}",
        f"quoted     {duration(time.quoted.middle)} of workers {time.quoted.in_words()}; it took "
        f"{duration(time.came_to)}: {verdict(time)}",
    ]


def verdict(measure: Measure) -> str:
    """Whether what it came to lies in the interval, in words."""
    if measure.inside is None:
        return f"not compared ({measure.why or 'the spread was not known'})"
    return f"{VERDICTS[measure.inside]} the interval"


def _measure(quoted: Interval, came_to: float, why: str) -> Measure:
    inside = None if why else quoted.holds(came_to)
    return Measure(quoted=quoted, came_to=came_to, inside=inside, why=why)


def _offer_for(quote: KeptQuote, totals: Totals, closing: Bill, currency: str) -> KeptOffer | str:
    """The offer for the machines that the workers were on, or why there is none."""
    prices = [use.stamp.price for use in totals.workers.values() if use.stamp is not None]
    places = {(price.instance_type, price.nano_per_hour) for price in prices}
    if closing.unpriced:
        return f"{plural(len(closing.unpriced), 'worker')} had no price"
    if len(places) != 1:
        return f"its workers were on {len(places)} kinds of machine or price"
    if quote.currency != currency:
        return f"it was quoted in {quote.currency}"
    machine, nano = places.pop()
    fitting = [
        offer
        for offer in quote.offers
        if offer.nano_per_hour == nano and offer.instance_type in (machine, None)
    ]
    if not fitting:
        return (
            f"it has no offer for {machine or 'an unknown machine'} at "
            f"{format_money(nano or 0, currency)} an hour of a worker"
        )
    return max(fitting, key=lambda offer: offer.instance_type is not None)
