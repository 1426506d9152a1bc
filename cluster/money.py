"""What things cost: pure integer arithmetic in 1e-9 currency units.

A worker's lifetime is the billed quantity. Images are charged their device time, rounded down;
what the rounding leaves over goes to the lifetime's other lines, so that all lines of a worker sum
exactly to its bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from cluster.records import Stamp
from conf.errors import ConfigError
from conf.schema import PricingConfig

NANO = 1_000_000_000
_NS_PER_HOUR = 3600 * NANO


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one worker: ``nano_per_hour`` is in 1e-9 currency units an hour."""

    nano_per_hour: int
    currency: str
    version: str
    provider: str
    instance_type: str
    purchase_option: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One cost line. ``kind`` is used, wasted, overhead or idle; every billed nanosecond of a
    worker is on exactly one line. ``image_id`` and ``row_id`` are set on used lines of images."""

    line_id: str
    kind: str
    worker: str
    image_id: str | None
    row_id: int | None
    device_ns: int
    amount_nano: int


def price_of(pricing: PricingConfig) -> Price:
    """Check and convert a configured price.

    Raises:
        ConfigError: the price is not a number >= 0, or finer than 1e-9.
    """
    try:
        nano = Decimal(pricing.price_per_hour) * NANO
    except InvalidOperation:
        nano = Decimal(-1)
    if not nano.is_finite() or nano < 0 or nano != nano.to_integral_value():
        raise ConfigError(
            f"pricing.price_per_hour is '{pricing.price_per_hour}'; expected a decimal number >= 0 "
            "with at most 9 digits after the point"
        )
    return Price(
        nano_per_hour=int(nano),
        currency=pricing.currency,
        version=pricing.version,
        provider=pricing.provider,
        instance_type=pricing.instance_type,
        purchase_option=pricing.purchase_option,
    )


def charge(price: Price, device_ns: int) -> int:
    """The amount for a part of a worker's time, rounded down."""
    return price.nano_per_hour * device_ns // _NS_PER_HOUR


def bill(price: Price, lifetime_ns: int) -> int:
    """The amount for a whole lifetime, rounded to the nearest unit."""
    return (price.nano_per_hour * lifetime_ns + _NS_PER_HOUR // 2) // _NS_PER_HOUR


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Split a non-negative integer by largest remainder; the parts sum exactly to ``total``.

    With all weights zero everything goes to the last part, so that no amount vanishes.
    """
    whole = sum(weights)
    if whole == 0:
        return [0] * (len(weights) - 1) + [total]
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def close_worker(stamp: Stamp, *, used_ns: int, used_amount: int, price: Price) -> list[LedgerLine]:
    """The lines of a worker's lifetime beside its images: wasted, overhead and idle.

    Args:
        stamp: the last evidence of the lifetime.
        used_ns, used_amount: sums over the worker's images that count.
    """
    wasted = max(0, stamp.busy_ns - used_ns)
    overhead = min(stamp.overhead_ns, max(0, stamp.lifetime_ns - used_ns - wasted))
    idle = max(0, stamp.lifetime_ns - used_ns - wasted - overhead)
    times = [wasted, overhead, idle]
    rest = bill(price, used_ns + sum(times)) - used_amount
    return [
        LedgerLine(
            line_id=f"{stamp.worker}:{kind}",
            kind=kind,
            worker=stamp.worker,
            image_id=None,
            row_id=None,
            device_ns=device_ns,
            amount_nano=amount,
        )
        for kind, device_ns, amount in zip(
            ("wasted", "overhead", "idle"), times, split(rest, times), strict=True
        )
    ]


def as_decimal(amount_nano: int) -> Decimal:
    """1e-9 units as a decimal number of currency units, exactly."""
    return Decimal(amount_nano).scaleb(-9)
