"""What an output comes to, in figures for people: rates, fill, cost; and how to write them.

Pure. The exact sums stay in ``Totals`` and ``Bill``; what is rounded here is only ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from cluster.money import as_decimal
from cluster.records import Stamp
from cluster.totals import Bill, Totals
from conf.schema import RunConfig

SIMULATED = "SIMULATED  no model ran; the pictures are drawn placeholders"
MEND = "mend these rows in the input and run them as a new job"
"""What to do when every quarantined row was rejected at reading."""
_SIGNIFICANT = 3
_DOUBLED = re.compile(r"^(.+?): (?=\1(?:\W|$))", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """What the totals do not hold: how the last run went.

    ``wall_s`` is 0 where nothing was run just now; ``reason`` says why a run ended before the work
    did; ``futile``: another run would end the same way; ``broken_files`` are input files that were
    left out, each with its problem; ``deadline`` is how that stands, "" without one.
    """

    wall_s: float = 0.0
    restarts: int = 0
    reason: str = ""
    futile: bool = False
    broken_files: tuple[str, ...] = ()
    deadline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Derived numbers; None where they would divide by nothing. Amounts in currency units.

    ``active_s`` is the time in which at least one worker lived, over all runs of the job. ``empty``
    says why slots of the batches stayed empty: each reason's share of all slots, largest first.
    """

    active_s: float
    images_per_second: float | None
    fill: float | None
    empty: tuple[tuple[str, float], ...]
    cost: Decimal
    cost_per_image: Decimal | None
    quarantined_share: float


def figures_of(totals: Totals, closing: Bill) -> Figures:
    """Derive the figures; an image costs its share of the whole bill, idle time included."""
    stamps = [use.stamp for use in totals.workers.values() if use.stamp is not None]
    offered = sum(stamp.offered for stamp in stamps)
    cost = as_decimal(closing.total_amount)
    active_s = active_seconds(stamps)
    return Figures(
        active_s=active_s,
        images_per_second=totals.images / active_s if totals.images and active_s else None,
        fill=sum(stamp.occupied for stamp in stamps) / offered if offered else None,
        empty=_empty_slots(stamps, offered),
        cost=cost,
        cost_per_image=cost / totals.images if totals.images else None,
        quarantined_share=totals.quarantined / totals.rows if totals.rows else 0.0,
    )


def why_empty(figures: Figures) -> str:
    """The reasons for empty slots in words; nothing where all were taken."""
    return ", ".join(f"{share(part)} {reason}" for reason, part in figures.empty)


def _empty_slots(stamps: Sequence[Stamp], offered: int) -> tuple[tuple[str, float], ...]:
    # of batches that servers formed nobody here knows why a slot stayed empty
    ours = [stamp for stamp in stamps if stamp.alive_ns is None]
    shapes = sum(stamp.other_shapes for stamp in ours)
    starved = sum(stamp.starved for stamp in ours)
    last = sum(stamp.offered - stamp.occupied for stamp in ours) - shapes - starved
    reasons = {
        "empty beside rows of other sizes": shapes,
        "waited for rows": starved,
        "empty at the end": last,
    }
    found = [(reason, slots / offered) for reason, slots in reasons.items() if slots > 0]
    return tuple(sorted(found, key=lambda each: -each[1]))


def active_seconds(stamps: Iterable[Stamp]) -> float:
    """How long at least one of the workers lived: the union of their lifetimes."""
    starts = sorted(
        (datetime.fromisoformat(stamp.started_at).timestamp(), stamp.lived_ns / 1e9)
        for stamp in stamps
    )
    total, end_s = 0.0, float("-inf")
    for start_s, lifetime_s in starts:
        fresh_s = start_s + lifetime_s - max(start_s, end_s)
        total += max(0.0, fresh_s)
        end_s = max(end_s, start_s + lifetime_s)
    return total


def is_simulated(config: RunConfig) -> bool:
    """Whether no model made these images."""
    return config.engine.name == "simulated" or config.model.name.startswith("simulated:")


def model_label(config: RunConfig) -> str:
    """The model's name as the metadata has it."""
    plain = config.model.name.removeprefix("simulated:")
    return f"simulated:{plain}" if is_simulated(config) else plain


def money(amount: Decimal, currency: str) -> str:
    """An amount for people: cents where that says it, else three significant digits; zero only for
    zero."""
    if not amount:
        return f"0 {currency}"
    if abs(amount) >= 1:
        return f"{amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,f} {currency}"
    digits = _SIGNIFICANT - 1 - amount.adjusted()
    rounded = amount.quantize(Decimal(1).scaleb(-max(2, digits)), ROUND_HALF_UP)
    whole, _, fraction = f"{rounded:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')} {currency}"


def format_money(amount_nano: int, currency: str) -> str:
    """An amount in 1e-9 units for people."""
    return money(as_decimal(amount_nano), currency)


UNPRICED = "unpriced"
COST_UNKNOWN = "unknown: no worker has a price"


def cost_unknown(closing: Bill) -> bool:
    """Whether no worker has a price, so that the sum is not 0, but unknown."""
    return bool(closing.unpriced) and len(closing.unpriced) == closing.workers


def unpriced(closing: Bill) -> str:
    """Which workers' time is in no amount, and why; "" where all is priced."""
    storage = f"{plural(closing.unpriced_lines, 'line')} of storage and requests"
    if not closing.unpriced:
        why = f"{storage}: the price book has no storage price for this output"
        return why if closing.unpriced_lines else ""
    reasons = sorted(set(closing.unpriced))
    more = f" (and {plural(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
    return (
        f"{len(closing.unpriced):,} of {plural(closing.workers, 'worker')}: {reasons[0]}{more}; "
        "their time is in no amount" + (f", nor are {storage}" if closing.unpriced_lines else "")
    )


def estimated(closing: Bill) -> str:
    """What of the bill nobody measured; "" where all was."""
    if not closing.estimated_ns:
        return ""
    return (
        f"{duration(closing.estimated_ns / 1e9)} of the wasted time: what Triton servers spent on "
        "images whose answers were lost they do not tell"
    )


def exact_money(amount_nano: int) -> str:
    """An amount of 1e-9 units with all of its digits, so that a column of them adds up."""
    return f"{as_decimal(amount_nano):,.9f}"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 0.9995:
        if seconds < 0.0009995:
            return f"{seconds * 1e6:.3g} µs" if seconds else "0 s"
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.5:
        return f"{seconds:.3g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    hours, minutes = divmod(round(whole / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def number(value: float, *, digits: int = 3) -> str:
    """A number with thousands separators; fractions to ``digits`` significant digits."""
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        return f"{round(value):,}"
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def size(count: int) -> str:
    """Bytes for people, in powers of 1000."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{number(value)} {unit}"


def share(part: float) -> str:
    """A share as percent; 0 % and 100 % only where they are exact."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99.9 < percent < 100:
        return "over 99.9 %"
    return f"{percent:.1f} %".replace(".0 %", " %")


def named_once(problem: str) -> str:
    """A file's problem without the file's name before it where the problem begins with it."""
    return _DOUBLED.sub("", problem, count=1)


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
