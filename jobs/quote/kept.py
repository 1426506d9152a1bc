"""Quotes by what was asked, in this user's cache, to be held against what the job came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.price import Price
from jobs.quote.estimate import Interval
from jobs.quote.offers import Offer
from operators.remembered import RememberedNumbers

_FILE = "quotes"
_ENDS = ("middle", "low", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What was quoted: ``cost`` in 1e-9 currency units, ``seconds`` of all workers together."""

    cost: Interval
    seconds: Interval


def remember_quote(digest: str, offers: Iterable[Offer]) -> None:
    """Keep the offers that have a cost, under the configuration's digest, the machine and price."""
    numbers: dict[tuple[object, ...], float | None] = {}
    for offer in offers:
        if offer.cost is None or offer.seconds is None or offer.cost.middle <= 0:
            continue
        lives = offer.seconds.times(offer.workers)
        key = (digest, offer.entry.instance_type or "", offer.nano_per_hour)
        for name, interval in (("cost", offer.cost), ("seconds", lives)):
            for end in _ENDS:
                numbers[*key, name, end] = getattr(interval, end)
    if numbers:
        RememberedNumbers(_FILE).keep_all(numbers)


def quoted_for(digest: str, prices: Iterable[Price]) -> Quoted | None:
    """What was quoted on this machine for a job whose workers had these prices; None where
    nothing was, or where they were on machines of several kinds."""
    places = {(price.instance_type or "", price.nano_per_hour) for price in prices}
    if len(places) != 1:
        return None
    machine, nano_per_hour = places.pop()
    for name in (machine, ""):  # an entry that names no machine holds for any
        found = _quoted(digest, name, nano_per_hour)
        if found is not None:
            return found
    return None


def _quoted(*key: object) -> Quoted | None:
    numbers = RememberedNumbers(_FILE)
    cost, seconds = (_interval(numbers, *key, name) for name in ("cost", "seconds"))
    return Quoted(cost=cost, seconds=seconds) if cost and seconds else None


def _interval(numbers: RememberedNumbers, *key: object) -> Interval | None:
    middle, low, high = (numbers.get(*key, end) for end in _ENDS)
    return None if middle is None else Interval(middle=middle, low=low, high=high)
