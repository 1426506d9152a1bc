"""Costs of many outputs as one HTML page that needs nothing else: charts, tables, and what is not
in them.

Asks the ledgers twice, by day and by what was asked for. Every text of the user's is escaped by the
template.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cluster.money import split
from jobs.cost.ask import GPU_KINDS, OTHER_KINDS, CostAnswer, cost_of
from jobs.cost.dimensions import Dimension, dimensions
from jobs.cost.outputs import Output
from jobs.cost.show import group_names, notes
from jobs.figures import money, number, plural, share
from jobs.report.charts import Part, bars_svg, day_costs
from jobs.report.costs import CostSurvey
from jobs.report.rendering import render

SHOWN_GROUPS = 40
_SHOWN_OUTPUTS = 40
_UNASKED = ("project",)
_KINDS = GPU_KINDS + OTHER_KINDS
_WHAT = {
    "used": "made the images that count",
    "wasted": "work that did not become an image",
    "overhead": "loading the model and warming up",
    "idle": "waiting for rows or the store",
    "storage": "keeping the images",
    "requests": "what the store was asked",
    "egress": "what was read out of the store",
}
_NONE = "–"
_NOTHING = Decimal(0)
Row = dict[str, Any]


def cost_page(
    outputs: Sequence[Output], by: Sequence[Dimension], *, spread_others: bool = False
) -> bytes:
    """The page as UTF-8 HTML; without ``by`` it groups by project.

    Raises:
        CorruptOutput: a line that counts cannot be read.
    """
    days = cost_of(outputs, dimensions(["day"]))
    groups = cost_of(outputs, by or dimensions(_UNASKED), spread_others=spread_others)
    urls = groups.standing.outputs
    context = {
        "title": f"Costs of {plural(len(urls), 'output')}",
        "now": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "spread": spread_others,
        "notes": notes(groups),
        "parts": [_currency(total, days, groups) for total in groups.totals.to_pylist()],
        "outputs": urls[:_SHOWN_OUTPUTS],
        "more_outputs": max(0, len(urls) - _SHOWN_OUTPUTS),
    }
    return render("cost.html.j2", context)


def _currency(total: Row, days: CostAnswer, groups: CostAnswer) -> dict[str, Any]:
    """All that is told in one currency; several are never added up."""
    currency = total["currency"]

    def mine(answer: CostAnswer) -> list[Row]:
        return [row for row in answer.rows.to_pylist() if row["currency"] == currency]

    return {
        "currency": currency,
        "tiles": _tiles(total, currency),
        "kinds": _kinds(total),
        "total": _exact(total["cost"]),
        "days": day_costs(_survey(mine(days)), currency),
        "groups": _groups(mine(groups), groups.by, currency),
    }


def _tiles(total: Row, currency: str) -> list[tuple[str, str, str]]:
    """The headline: (name, value, note) each."""
    unpriced = total["unpriced_lines"]
    note = f"without {plural(unpriced, 'line')} that no price is known for" if unpriced else ""
    return [
        ("Cost", _money(total["cost"], currency), note or "all kinds"),
        ("Images", f"{total['images']:,}", ""),
        ("Per image", _money(total["cost_per_image"], currency), "idle time included"),
        ("Per 1,000 images", _money(total["cost_per_1000_images"], currency), ""),
        (
            "GPU hours",
            number(total["gpu_hours"]),
            f"{_share(total['waste_share'])} wasted, by cost",
        ),
    ]


def _kinds(total: Row) -> list[dict[str, Any]]:
    """Where the money went, with shares that sum to 100 %."""
    kinds = [kind for kind in _KINDS if total[kind]]
    nanos = [max(0, _nano(total[kind])) for kind in kinds]
    shares = split(1000, nanos) if sum(nanos) else [0] * len(nanos)
    return [
        {
            "kind": kind,
            "what": _WHAT[kind],
            "amount": _exact(total[kind]),
            "weight": nano,
            "percent": f"{tenths / 10:.1f} %",
        }
        for kind, nano, tenths in zip(kinds, nanos, shares, strict=True)
    ]


def _survey(rows: Sequence[Row]) -> CostSurvey:
    """The days' sums for the report's chart; without storage, which is of days to come."""
    found = CostSurvey()
    for row in rows:
        for kind in _KINDS:
            if row[kind] and kind != "storage":
                found.days[row["day"], kind] += _nano(row[kind])
    return found


def _groups(rows: Sequence[Row], by: Sequence[str], currency: str) -> dict[str, Any]:
    """The first groups as bars and as a table, in the answer's order."""
    shown, more = rows[:SHOWN_GROUPS], rows[SHOWN_GROUPS:]
    bars = [
        [
            Part(
                kind=kind,
                size=max(0, _nano(row[kind])),
                title=f"{_name(row, by)}: {kind} {_money(row[kind], currency)}",
            )
            for kind in _KINDS
            if row[kind]
        ]
        for row in shown
    ]
    return {
        "by": ", ".join(by),
        "picture": bars_svg(bars, f"cost by {', '.join(by)}") if len(shown) > 1 else "",
        "kinds": [kind for kind in _KINDS if any(row[kind] for row in shown)],
        "rows": [
            {
                "name": _name(row, by),
                "cost": _money(row["cost"], currency),
                "images": f"{row['images']:,}",
                "each": _money(row["cost_per_image"], currency),
                "waste": _share(row["waste_share"]),
                "hours": number(row["gpu_hours"]),
                "unpriced": f"{row['unpriced_lines']:,}",
            }
            for row in shown
        ],
        "unpriced": any(row["unpriced_lines"] for row in rows),
        "more": len(more),
        "rest": money(sum((row["cost"] or _NOTHING for row in more), _NOTHING), currency),
        "rest_unpriced": f"{sum(row['unpriced_lines'] for row in more):,}",
    }


def _name(row: Row, by: Sequence[str]) -> str:
    return " · ".join(group_names(row, by))


def _money(amount: Decimal | None, currency: str) -> str:
    return _NONE if amount is None else money(amount, currency)


def _share(part: float | None) -> str:
    return _NONE if part is None else share(part)


def _exact(amount: Decimal | None) -> str:
    """With all digits, so that a column adds up."""
    return _NONE if amount is None else f"{amount:,.9f}"


def _nano(amount: Decimal | None) -> int:
    return int((amount or _NOTHING).scaleb(9))
