"""A quote for people and for programs. Printing is the caller's."""

from __future__ import annotations

from typing import Any

from cluster.money import as_decimal
from jobs.figures import SIMULATED, duration, format_money, is_simulated, plural
from jobs.quote.ask import Quote
from jobs.quote.estimate import CONFIDENCE, Interval
from jobs.quote.offers import Offer
from jobs.rates import this_host

_MOST_OFFERS = 40


def quote_lines(found: Quote) -> list[str]:
    """What is asked, what the quote says from, an offer a line, and what it does not know."""
    lines = [
        f"job        {plural(found.images, 'image')} of {plural(found.rows, 'row')}"
        f"{_rejected(found)}; {plural(found.strata, 'kind')} of size, steps, guidance and sampler "
        f"in {plural(found.sizes, 'size')}",
        f"model      {found.config.model.name}, revision {found.revision}, engine "
        f"{found.config.engine.name}",
    ]
    if is_simulated(found.config):
        lines.append(SIMULATED)
    lines += [
        f"measured   {_basis(found)}",
        f"device     {duration(found.work.seconds)} {_work_spread(found)} of one like "
        f"{'theirs' if _served(found) else 'this'}",
    ]
    lines += [f"offer      {_offer(found, offer)}" for offer in found.offers[:_MOST_OFFERS]]
    if len(found.offers) > _MOST_OFFERS:
        more = plural(len(found.offers) - _MOST_OFFERS, "more entry").replace("entrys", "entries")
        lines.append(f"offer      {more} of the price book: --json has all")
    lines += [f"note       {note}" for note in found.notes]
    return [*lines, "nothing was written to the output"]


def quote_to_mapping(found: Quote) -> dict[str, Any]:
    """Plain values for JSON; amounts are decimal texts, times seconds, what is not known null."""
    return {
        "schema": 1,
        "asked_at": found.asked_at.isoformat(timespec="seconds"),
        "digest": found.config.digest(),
        "confidence": CONFIDENCE,
        "currency": found.currency,
        "simulated": is_simulated(found.config),
        "rows": found.rows,
        "rejected": found.rejected,
        "images": found.images,
        "strata": found.strata,
        "measured": {
            "device": found.device,
            "by": "remembered" if found.pilot is None else "pilot",
            "tried": found.pilot.tried if found.pilot else 0,
            "failed": found.pilot.failed if found.pilot else 0,
            "load_seconds": found.crew.load_s,
            "earlier_runs": len(found.earlier.used),
            "earlier_left_out": found.earlier.left_out,
            "earlier_at": [run.at.isoformat(timespec="seconds") for run in found.earlier.used],
            "earlier_hosts": sorted({run.host for run in found.earlier.used}),
            "untried_share": found.work.untried,
        },
        "device_seconds": _ends(Interval.around(found.work.seconds, found.work.relative)),
        "offers": [_plain(offer) for offer in found.offers],
        "notes": list(found.notes),
    }


def _rejected(found: Quote) -> str:
    return f" ({found.rejected:,} rejected)" if found.rejected else ""


def _basis(found: Quote) -> str:
    runs = f"{plural(len(found.earlier.used), 'earlier run')}{_ages(found)}"
    if found.pilot is None:
        elsewhere = found.earlier.elsewhere(this_host())
        where = "another machine" if elsewhere else "this machine"
        return f"nothing now; by {runs} on {where} ({found.device})"
    known = "" if found.earlier.torn or _served(found) else f"; {runs} to tell how runs differ"
    return (
        f"a pilot of {plural(found.pilot.tried, 'image')} {_where(found)}, "
        f"starting up {duration(found.pilot.load_s)}{known}"
    )


def _where(found: Quote) -> str:
    through = f"through {found.device}"
    return through if _served(found) else f"on this machine ({found.device})"


def _served(found: Quote) -> bool:
    """Whether Triton servers were measured, and not this machine."""
    return found.config.engine.name == "triton"


def _ages(found: Quote) -> str:
    """How long ago the earlier runs were."""
    if not found.earlier.used:
        return ""
    newest, oldest = found.earlier.days(found.asked_at)
    if not oldest:
        return " of today"
    span = f"{newest} to {oldest} days" if newest != oldest else plural(oldest, "day")
    return f", {span} ago,"


def _work_spread(found: Quote) -> str:
    return Interval.around(found.work.seconds, found.work.relative).in_words()


def _offer(found: Quote, offer: Offer) -> str:
    hourly = (
        "" if offer.nano_per_hour is None else format_money(offer.nano_per_hour, found.currency)
    )
    if offer.seconds is None or offer.cost is None:
        price = f"{hourly} an hour of a worker; " if hourly else ""
        return f"{offer.name}: {price}{offer.unknown}"
    cost = format_money(round(offer.cost.middle), found.currency)
    return (
        f"{offer.name}: {cost} {offer.cost.in_words()}, {duration(offer.seconds.middle)} "
        f"{offer.seconds.in_words()} on {_crew(offer)}{_extras(found, offer)}{_stated(offer)}"
    )


def _crew(offer: Offer) -> str:
    if not offer.devices:
        return plural(offer.workers, "worker")
    assert offer.paid is not None
    devices = plural(offer.devices, "device")
    return f"{devices} of servers, {duration(offer.paid.middle)} paid"


def _extras(found: Quote, offer: Offer) -> str:
    parts = [
        f"{name} {format_money(nano, found.currency)}"
        for name, nano in (("storage", offer.storage_nano), ("requests", offer.requests_nano))
        if nano
    ]
    return f" (of it {', '.join(parts)})" if parts else ""


def _stated(offer: Offer) -> str:
    """Which offers rest on a speed that somebody stated."""
    if offer.speed is None or offer.speed == 1:
        return ""
    return f", at the stated speed of {offer.speed:.3g} of this machine"


def _plain(offer: Offer) -> dict[str, Any]:
    entry = offer.entry
    return {
        "provider": entry.provider,
        "region": entry.region,
        "zone": entry.zone,
        "instance_type": entry.instance_type,
        "purchase_option": entry.purchase_option,
        "workers": offer.workers,
        "server_devices": offer.devices or None,
        "paid_seconds": None if offer.paid is None else _ends(offer.paid),
        "price_per_hour": _amount(offer.nano_per_hour),
        "speed": offer.speed,
        "wall_seconds": None if offer.seconds is None else _ends(offer.seconds),
        "cost": None
        if offer.cost is None
        else {name: _amount(end) for name, end in _ends(offer.cost).items()},
        "storage": _amount(offer.storage_nano),
        "requests": _amount(offer.requests_nano),
        "unknown": offer.unknown or None,
    }


def _ends(interval: Interval) -> dict[str, float | None]:
    return {"middle": interval.middle, "low": interval.low, "high": interval.high}


def _amount(nano: float | None) -> str | None:
    return None if nano is None else f"{as_decimal(round(nano)):f}"
