"""What the report says of money beside the bill: how it spreads over images, rows and days.

One pass over the ledger lines of images; keeps counts, ten rows and the days, however many there
are. All lines of a row lie in one object, since a row is committed as a whole.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.counted_ledger import image_lines_of
from cluster.job_log import JobRecord
from cluster.ledger import Attribution, ledger_table
from cluster.ledger_days import on_days
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import as_numpy
from cluster.totals import Totals, all_lines

DEAREST = 10
_STEPS_A_DECADE = 200
"""Costs are counted in classes of about 1.2 %."""
_WIDE = pa.decimal128(38, 0)
"""For sums of amounts, which 64 bits need not hold."""
_LINES = [
    "row_id",
    "sampler",
    "width",
    "height",
    "steps",
    "period_start",
    "amount_nano",
    "gpu_ns",
]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DearRow:
    """A row of the input and what its images cost; the facts are those of one of them."""

    amount_nano: int
    row_id: int
    images: int
    gpu_ns: int
    width: int
    height: int
    steps: int
    sampler: str


@dataclass(slots=True)
class CostSurvey:
    """What the pass found. Amounts in 1e-9 units; lines without a price are not in it.

    ``classes``: images by the logarithm of their cost; those that cost nothing are in none.
    ``days``: (day, kind) -> amount, without storage. ``dearest``: rows, dearest first.
    """

    classes: Counter[int] = field(default_factory=Counter)
    days: Counter[tuple[date, str]] = field(default_factory=Counter)
    least: int | None = None
    most: int | None = None
    _dearest: list[DearRow] = field(default_factory=list)

    @property
    def dearest(self) -> list[DearRow]:
        """The rows that cost most."""
        return sorted(self._dearest, key=lambda row: (-row.amount_nano, row.row_id))

    @property
    def images(self) -> int:
        """Images that cost anything."""
        return sum(self.classes.values())

    def add_images(self, lines: pa.Table) -> None:
        """Count the lines of images; ``lines`` holds whole rows."""
        lines = lines.select(_LINES).filter(pc.is_valid(lines["amount_nano"]))
        self._add_days(lines.append_column("kind", pa.repeat("used", lines.num_rows)))
        amounts = as_numpy(lines["amount_nano"])
        paid = amounts[amounts > 0]
        if paid.size:
            found = np.floor(np.log10(paid) * _STEPS_A_DECADE).astype(int)
            values, counts = np.unique(found, return_counts=True)
            self.classes.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            least, most = int(paid.min()), int(paid.max())
            self.least = least if self.least is None else min(self.least, least)
            self.most = most if self.most is None else max(self.most, most)
        self._add_rows(lines)

    def add_workers(self, lines: pa.Table) -> None:
        """Count the lines of the ledger that no image has, but for storage, which is of days to
        come."""
        spent = pc.and_(pc.is_valid(lines["amount_nano"]), pc.not_equal(lines["kind"], "storage"))
        self._add_days(on_days(lines.filter(spent)))

    def _add_days(self, lines: pa.Table) -> None:
        days = pc.cast(lines["period_start"], pa.date32())
        kinds = lines["kind"].cast(pa.string())
        table = pa.table({"day": days, "kind": kinds, "amount": lines["amount_nano"].cast(_WIDE)})
        sums = table.group_by(["day", "kind"]).aggregate([("amount", "sum")])
        for row in sums.to_pylist():
            self.days[row["day"], row["kind"]] += int(row["amount_sum"])

    def _add_rows(self, lines: pa.Table) -> None:
        facts = [(name, "min") for name in ("width", "height", "steps", "sampler")]
        plain = lines.set_column(
            lines.column_names.index("sampler"), "sampler", lines["sampler"].cast(pa.string())
        )
        rows = plain.group_by("row_id").aggregate(
            [("amount_nano", "sum"), ("amount_nano", "count"), ("gpu_ns", "sum"), *facts]
        )
        order = pc.sort_indices(rows, sort_keys=[("amount_nano_sum", "descending")])
        found = map(_dear_row, rows.take(order[:DEAREST]).to_pylist())
        self._dearest = heapq.nlargest(DEAREST, [*self._dearest, *found])

    def quantile(self, part: float) -> float:
        """The cost that this part of the images stays below, within 1.2 %, in 1e-9 units."""
        before, target = 0, part * self.images
        for place in sorted(self.classes):
            before += self.classes[place]
            if before >= target:
                return float(10 ** ((place + 0.5) / _STEPS_A_DECADE))
        return 0.0

    def histogram(self, bars: int) -> list[tuple[float, float, int]]:
        """(from, up to, images) of at most so many classes of equal ratio."""
        if not self.classes:
            return []
        first, last = min(self.classes), max(self.classes)
        wide = -(-(last - first + 1) // bars)
        found = Counter({(place - first) // wide: 0 for place in range(first, last + 1)})
        for place, images in self.classes.items():
            found[(place - first) // wide] += images

        def edge(index: int) -> float:
            return float(10 ** ((first + index * wide) / _STEPS_A_DECADE))

        return [(edge(index), edge(index + 1), found[index]) for index in sorted(found)]

    def by_day(self, bars: int) -> Iterator[tuple[date, date, dict[str, int]]]:
        """(first day, last day, kind -> amount), of all days from the first to the last that cost
        anything; in at most so many bars of as many days each."""
        days = [day for (day, _), amount in self.days.items() if amount]
        if not days:
            return
        first, count = min(days), (max(days) - min(days)).days + 1
        wide = -(-count // bars)
        sums: dict[int, Counter[str]] = {place: Counter() for place in range(-(-count // wide))}
        for (day, kind), amount in self.days.items():
            if amount:
                sums[(day - first).days // wide][kind] += amount
        for place, kinds in sums.items():
            begin = first + timedelta(days=place * wide)
            yield begin, begin + timedelta(days=wide - 1), dict(kinds)


def _dear_row(row: dict[str, Any]) -> DearRow:
    return DearRow(
        amount_nano=row["amount_nano_sum"],
        row_id=row["row_id"],
        images=row["amount_nano_count"],
        gpu_ns=row["gpu_ns_sum"],
        width=row["width_min"],
        height=row["height_min"],
        steps=row["steps_min"],
        sampler=row["sampler_min"],
    )


def cost_survey(store: Store, job: JobRecord, plan: PlanReader, totals: Totals) -> CostSurvey:
    """Go through the ledger of an output.

    Raises:
        CorruptOutput: an object that a counted commit names is missing or damaged.
    """
    result = CostSurvey()
    for lines in image_lines_of(store, plan, _LINES):
        result.add_images(lines)
    lines = all_lines(totals, job.config.pricing.storage_months)
    result.add_workers(ledger_table(lines, Attribution.of(job.config.job)))
    return result
