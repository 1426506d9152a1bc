"""What things cost: pure integer arithmetic in 1e-9 currency units.

A worker's lifetime is the billed quantity. Images are charged their device time, rounded down;
what the rounding leaves over goes to the lifetime's other lines, so that all lines of a worker sum
exactly to its bill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from cluster.price import Price
from cluster.records import Stamp
from operators.request import Request

_NS_PER_HOUR = 3600 * 10**9
_FINEST = Decimal("1e-9")
ESTIMATED = "estimated"
_REST = (
    ("wasted", "wasted"),
    (ESTIMATED, "wasted"),
    ("overhead", "overhead"),
    ("idle", "idle"),
)
"""Names and kinds of a lifetime's lines beside its images; the last takes what rounding left."""
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One cost. ``kind`` is used, wasted, overhead or idle; every billed nanosecond of a worker is
    on exactly one line. ``amount_nano`` is None where the worker's price is not known.

    ``quantity`` of ``unit`` at ``unit_nano`` each is what is not paid by time; its kinds are
    storage, requests and egress. ``period_start`` and ``period_end`` are microseconds since the
    epoch. ``image``, ``model`` and ``tags`` (those of its row) are set on used lines.
    """

    line_id: str
    kind: str
    worker: str | None
    node: str | None
    price: Price
    period_start: int
    period_end: int
    device_ns: int | None
    amount_nano: int | None
    quantity: Decimal | None = None
    unit: str | None = None
    unit_nano: int | None = None
    image: Request | None = None
    model: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def charge(price: Price, device_ns: int) -> int | None:
    """The amount for a part of a worker's time, rounded down; None where no price is known."""
    if price.nano_per_hour is None:
        return None
    return price.nano_per_hour * device_ns // _NS_PER_HOUR


def bill(price: Price, lifetime_ns: int) -> int | None:
    """The amount for a whole lifetime, rounded to the nearest unit; None where it has no price."""
    if price.nano_per_hour is None:
        return None
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


def close_worker(stamp: Stamp, *, used_ns: int, used_amount: int) -> list[LedgerLine]:
    """The lines of a worker's lifetime beside its images: wasted, overhead and idle; what of the
    wasted time is an estimate has a line of its own.

    Args:
        stamp: the last evidence of the lifetime.
        used_ns, used_amount: sums over the worker's images that count.
    """
    wasted = max(0, stamp.busy_ns - used_ns)
    overhead = min(stamp.overhead_ns, max(0, stamp.lifetime_ns - used_ns - wasted))
    idle = max(0, stamp.lifetime_ns - used_ns - wasted - overhead)
    estimated = estimated_ns(stamp, used_ns=used_ns)
    times = [wasted - estimated, estimated, overhead, idle]
    whole = bill(stamp.price, used_ns + sum(times))
    amounts: Sequence[int | None] = (
        [None] * len(times) if whole is None else split(whole - used_amount, times)
    )
    born = microseconds(stamp.started_at)
    return [
        LedgerLine(
            line_id=f"{stamp.worker}:{name}",
            kind=kind,
            worker=stamp.worker,
            node=stamp.node,
            price=stamp.price,
            period_start=born,
            period_end=born + stamp.lived_ns // 1000,
            device_ns=device_ns,
            amount_nano=amount,
        )
        for (name, kind), device_ns, amount in zip(_REST, times, amounts, strict=True)
        if device_ns or name != ESTIMATED
    ]


def estimated_ns(stamp: Stamp, *, used_ns: int) -> int:
    """How much of a worker's wasted time nobody measured."""
    return min(stamp.estimated_ns, max(0, stamp.busy_ns - used_ns))


def request_lines(stamp: Stamp) -> list[LedgerLine]:
    """What a worker asked of the output's store; none of a local folder, which charges nothing."""
    asked, price = stamp.requests, stamp.price.storage
    writes, reads, egress = (
        (price.nano_per_1000_writes, price.nano_per_1000_reads, price.nano_per_gb_egress)
        if price
        else (None, None, None)
    )
    born = microseconds(stamp.started_at)
    return [
        LedgerLine(
            line_id=f"{stamp.worker}:{name}",
            kind=kind,
            worker=stamp.worker,
            node=stamp.node,
            price=stamp.price,
            period_start=born,
            period_end=born + stamp.lived_ns // 1000,
            device_ns=None,
            amount_nano=None if unit_nano is None else _nearest(count * unit_nano, per),
            quantity=Decimal(count) / per,
            unit=unit,
            unit_nano=unit_nano,
        )
        for name, kind, unit, count, per, unit_nano in (
            ("writes", "requests", "1000 writes", asked.writes, 1000, writes),
            ("reads", "requests", "1000 reads", asked.reads, 1000, reads),
            ("egress", "egress", "GB", asked.read_bytes if egress else 0, 10**9, egress),
        )
        if count
    ]


def cost_so_far(stamp: Stamp) -> int:
    """What a worker's life and requests have cost, as far as they have a price."""
    asked = sum(line.amount_nano or 0 for line in request_lines(stamp))
    return (bill(stamp.price, stamp.lifetime_ns) or 0) + asked


def storage_line(image_bytes: int, months: Decimal, last: Stamp) -> LedgerLine:
    """What it costs to keep the images for so many months, by the prices of the ``last`` worker;
    each month has 730 hours."""
    price = last.price.storage
    unit_nano = price.nano_per_gb_month if price else None
    end = microseconds(last.started_at) + last.lived_ns // 1000
    amount = None if unit_nano is None else image_bytes * unit_nano * months / 10**9
    return LedgerLine(
        line_id="storage",
        kind="storage",
        worker=None,
        node=None,
        price=last.price,
        period_start=end,
        period_end=end + int(months * 730 * 3600 * 10**6),
        device_ns=None,
        amount_nano=None if amount is None else int(amount.to_integral_value(ROUND_HALF_UP)),
        quantity=(image_bytes * months / 10**9).quantize(_FINEST, ROUND_HALF_UP),
        unit="GB-month",
        unit_nano=unit_nano,
    )


def _nearest(amount: int, per: int) -> int:
    return (amount + per // 2) // per


def microseconds(when: str) -> int:
    """An ISO 8601 time as microseconds since the epoch."""
    return (datetime.fromisoformat(when) - _EPOCH) // timedelta(microseconds=1)


def as_decimal(amount_nano: int) -> Decimal:
    """1e-9 units as a decimal number of currency units, exactly."""
    return Decimal(amount_nano).scaleb(-9)
