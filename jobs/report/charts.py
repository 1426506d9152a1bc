"""Charts of money as inline SVG: no script, no network, colours of the page's style. Pure.

A picture holds bars alone and is stretched to the width that there is; all words stand in the page
around it, so that they keep their size on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from markupsafe import Markup, escape

from jobs.figures import duration, format_money, money, number, plural
from jobs.report.costs import CostSurvey

HISTOGRAM_BARS = 40
DAY_BARS = 62
_HEIGHT = 100
_NANO = Decimal("1e-9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a bar: its class in the style, its size, and what a pointer on it reads."""

    kind: str
    size: float
    title: str


def bars_svg(bars: Sequence[Sequence[Part]], label: str) -> Markup:
    """Stacked bars side by side, the highest as high as the picture; ``label`` says it in words."""
    highest = max((sum(part.size for part in bar) for bar in bars), default=0) or 1
    pieces = []
    for place, bar in enumerate(bars):
        top = float(_HEIGHT)
        for part in bar:
            height = _HEIGHT * part.size / highest
            top -= height
            if height:
                pieces.append(
                    f'<rect class="{escape(part.kind)}" x="{place + 0.06:.2f}" y="{top:.3f}" '
                    f'width="0.88" height="{height:.3f}"><title>{escape(part.title)}</title></rect>'
                )
    return Markup(
        f'<svg class="plot" role="img" aria-label="{escape(label)}" preserveAspectRatio="none" '
        f'viewBox="0 0 {max(1, len(bars))} {_HEIGHT}">{"".join(pieces)}</svg>'
    )


def image_costs(survey: CostSurvey, currency: str) -> dict[str, Any] | None:
    """How the cost of an image is spread; None where no image cost anything."""
    if survey.least is None or survey.most is None:
        return None
    classes = survey.histogram(HISTOGRAM_BARS)
    bars = [
        [
            Part(
                kind="used",
                size=images,
                title=f"{plural(images, 'image')} at {_rough(low, currency)} to "
                f"{_rough(high, currency)}",
            )
        ]
        for low, high, images in classes
    ]
    low, median, high = (_rough(survey.quantile(part), currency) for part in (0.05, 0.5, 0.95))
    middle = classes[len(classes) // 2][0]
    least, most = format_money(survey.least, currency), format_money(survey.most, currency)
    return {
        "picture": bars_svg(bars, f"cost per image from {least} to {most}, half below {median}"),
        "axis": [least, _rough(middle, currency), most] if len(classes) > 2 else [least, most],
        "summary": f"Half of the images cost less than about {median}, nine of ten between {low} "
        f"and {high}. The scale is logarithmic.",
        "highest": f"{max(images for _, _, images in classes):,} images",
    }


def dearest_rows(survey: CostSurvey, currency: str) -> list[dict[str, str]]:
    """The rows that cost most, with what explains it."""
    median = survey.quantile(0.5)
    return [
        {
            "row": f"{row.row_id:,}",
            "what": f"{row.width} × {row.height}, {row.steps} steps, {row.sampler}",
            "images": f"{row.images:,}",
            "time": duration(row.gpu_ns / 1e9),
            "cost": format_money(row.amount_nano, currency),
            "times": f"{number(row.amount_nano / row.images / median)} ×" if median else "",
        }
        for row in survey.dearest
        if row.amount_nano
    ]


def day_costs(survey: CostSurvey, currency: str) -> dict[str, Any] | None:
    """What each day cost; None where there is only one."""
    days = list(survey.by_day(DAY_BARS))
    if len(days) < 2:
        return None
    kinds = sorted({kind for _, _, sums in days for kind in sums}, key=_order)
    bars = [
        [
            Part(
                kind=kind,
                size=max(0, sums.get(kind, 0)),
                title=f"{_period(first, last)}: {kind} {format_money(sums.get(kind, 0), currency)}",
            )
            for kind in kinds
        ]
        for first, last, sums in days
    ]
    totals = [sum(sums.values()) for _, _, sums in days]
    dearest = days[totals.index(max(totals))]
    wide = (days[0][1] - days[0][0]).days + 1
    return {
        "picture": bars_svg(bars, f"cost by day from {days[0][0]} to {days[-1][1]}"),
        "axis": [str(days[0][0]), str(days[-1][0])],
        "kinds": kinds,
        "summary": f"{format_money(sum(totals), currency)} over {plural(len(days) * wide, 'day')} "
        f"(UTC), {format_money(sum(totals) // (len(days) * wide), currency)} a day; most, "
        f"{format_money(max(totals), currency)}, on {_period(dearest[0], dearest[1])}."
        + (f" Each bar is {wide} days." if wide > 1 else ""),
    }


def _order(kind: str) -> int:
    known = ("used", "overhead", "wasted", "idle")
    return known.index(kind) if kind in known else len(known)


def _period(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _rough(nano: float, currency: str) -> str:
    """An amount that is known to two digits."""
    amount = Decimal(f"{nano:.3g}") * _NANO
    return money(amount, currency)
