"""``imagemill cost``: what outputs cost, by whatever the ledger knows. Reads only the stores.

Amounts are sums of integers and stay exact to the last 1e-9 unit; what has no price is counted
beside the sums and never as nothing; sums of several currencies stand in several rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from jobs.cost.dimensions import Dimension, dimensions, quoted
from jobs.cost.lines import Wanted, ledger
from jobs.cost.outputs import Output, Standing, find_outputs
from jobs.cost.spread import refuse_kind, spread

GPU_KINDS = ("used", "wasted", "overhead", "idle")
OTHER_KINDS = ("storage", "requests", "egress")
_READ = ("kind", "gpu_ns", "amount_nano", "currency")
TIMES = ("day", "month")
"""The dimensions that are times."""
TO_COME = "to_come"
"""The column that marks rows of days and months after this one."""
_HERE = {None: "true", "day": "true", "month": "part < 2"}
"""Which parts of a line that lasts over midnight count as a line of a group, by what is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAnswer:
    """What was found. ``rows`` has the columns of ``by`` and then those of ``FIGURES``, one row a
    group and currency; ``totals`` has ``FIGURES`` alone, one row a currency.
    """

    by: tuple[str, ...]
    rows: pa.Table
    totals: pa.Table
    standing: Standing

    @property
    def to_come(self) -> str | None:
        """The last day or month of the rows, as ISO 8601, where that is still to come."""
        if TO_COME not in self.rows.column_names:
            return None
        time = next(name for name in self.by if name in TIMES)
        return max((str(row[time]) for row in self.rows.to_pylist() if row[TO_COME]), default=None)

    @property
    def unpriced_lines(self) -> int:
        """Lines whose cost is not known, so in no sum."""
        return sum(self.totals["unpriced_lines"].to_pylist())


FIGURES = (
    "currency",
    "cost",
    *GPU_KINDS,
    *OTHER_KINDS,
    "images",
    "cost_per_image",
    "cost_per_1000_images",
    "waste_share",
    "gpu_hours",
    "lines",
    "unpriced_lines",
    "unpriced_gpu_hours",
)
"""The columns of an answer. Amounts are decimals in units of ``currency``, ``waste_share`` is that
of ``wasted`` in the cost of GPU time. Null is what is not known: a cost without any priced line,
and a cost per image as soon as one line has no price."""


def cost(
    outputs: Sequence[str],
    by: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    spread_others: bool = False,
) -> CostAnswer:
    """What the outputs at or below these paths and URLs cost.

    Args:
        by: dimensions of ``jobs.cost.dimensions``; with ``day`` or ``month`` the rows are in their
            order, ``cost_change`` compares with the row before and ``to_come`` marks days and
            months after this one, else the dearest is first.
        overrides: ``storage.*`` keys.
        spread_others: charge what no image has to the images, by their device time.

    Raises:
        ConfigError: an unknown dimension, or one that leaves nothing to spread.
        OutputMissing: nothing is there, or no job is.
        CorruptOutput: a line that counts cannot be read.
    """
    wanted = dimensions(by)
    return cost_of(find_outputs(outputs, overrides), wanted, spread_others=spread_others)


def cost_of(
    outputs: Sequence[Output], by: Sequence[Dimension], *, spread_others: bool = False
) -> CostAnswer:
    """The same of outputs that were found."""
    if spread_others:
        refuse_kind(by)
    with ledger(outputs, _wanted(by)) as db:
        db.execute(_grouped(by))
        if spread_others:
            db.execute(spread(by))
        rows = db.sql(_figures(by, "shared" if spread_others else "summed")).to_arrow_table()
        totals = db.sql(_figures((), "summed")).to_arrow_table()
    return CostAnswer(
        by=tuple(one.name for one in by),
        rows=rows if by else totals,
        totals=totals,
        standing=Standing.of(outputs),
    )


def _wanted(by: Sequence[Dimension]) -> Wanted:
    plain = {name for one in by if one.tag is None for name in one.columns}
    return Wanted(
        columns=tuple(plain.union(_READ)),
        tags=tuple((one.sql, one.tag) for one in by if one.tag is not None),
        by_day=any(one.name in TIMES for one in by),
    )


def _grouped(by: Sequence[Dimension]) -> str:
    """The one pass over the lines: integer sums, by dimensions, currency and output, and
    ``of_image``."""
    keys = [f"{one.sql} AS {quoted(one.name)}" for one in by]
    kinds = [
        f"sum(amount_nano) FILTER (kind = '{kind}') AS {kind}" for kind in GPU_KINDS + OTHER_KINDS
    ]
    time = _timed(by)
    here, begun = _HERE[time], "part = 0" if time else "true"
    sums = [
        "sum(amount_nano) AS cost",
        *kinds,
        "count(*) FILTER (kind = 'used') AS images",
        "sum(gpu_ns) AS gpu_ns",
        "coalesce(sum(gpu_ns) FILTER (kind = 'used'), 0) AS used_ns",
        "coalesce(sum(gpu_ns) FILTER (kind <> 'used'), 0) AS others_ns",
        "count(*) FILTER (amount_nano IS NULL AND kind <> 'used') AS unpriced_others",
        f"count(*) FILTER ({here}) AS lines",
        f"count(*) FILTER (amount_nano IS NULL AND {here}) AS unpriced_lines",
        f"count(*) FILTER ({begun}) AS whole_lines",
        f"count(*) FILTER (amount_nano IS NULL AND {begun}) AS whole_unpriced",
        "sum(gpu_ns) FILTER (amount_nano IS NULL) AS unpriced_gpu_ns",
    ]
    chosen = ", ".join([*keys, _of_image(by), "currency", "output AS source", *sums])
    return f"CREATE TEMP TABLE summed AS SELECT {chosen} FROM lines GROUP BY ALL"


def _of_image(by: Sequence[Dimension]) -> str:
    """Where a tag is missing: whether lines are images' (null elsewhere). Such images and what no
    image has are two rows, for together they would make a false cost per image."""
    missing = " OR ".join(f"{one.sql} IS NULL" for one in by if one.tag is not None)
    return f"CASE WHEN {missing or 'false'} THEN kind = 'used' END AS of_image"


def _figures(by: Sequence[Dimension], table: str) -> str:
    """The sums of fewer groups, and what people ask of them."""
    names = [quoted(one.name) for one in by]
    summed = ["cost", *GPU_KINDS, *OTHER_KINDS, "images", "gpu_ns", "unpriced_gpu_ns"]
    sums = [f"sum({name}) AS {name}" for name in summed]
    lines, missing = ("lines", "unpriced_lines") if by else ("whole_lines", "whole_unpriced")
    sums += [f"sum({lines}) AS lines", f"sum({missing}) AS unpriced_lines"]
    keys = ", ".join([*names, "currency"])
    apart = ["of_image"] if by else []
    groups = f"SELECT {', '.join([keys, *apart, *sums])} FROM {table} GROUP BY ALL"
    gpu = " + ".join(f"coalesce({kind}, 0)" for kind in GPU_KINDS)
    known = "images > 0 AND unpriced_lines = 0"
    shown = [
        *(f"{_units(name)} AS {name}" for name in ("cost", *GPU_KINDS, *OTHER_KINDS)),
        "CAST(images AS BIGINT) AS images",
        f"CASE WHEN {known} THEN {_units(_each(1))} END AS cost_per_image",
        f"CASE WHEN {known} THEN {_units(_each(1000))} END AS cost_per_1000_images",
        f"CAST(coalesce(wasted, 0) AS DOUBLE) / nullif({gpu}, 0) AS waste_share",
        "coalesce(gpu_ns, 0) / 3.6e12 AS gpu_hours",
        "CAST(lines AS BIGINT) AS lines",
        "CAST(unpriced_lines AS BIGINT) AS unpriced_lines",
        "coalesce(unpriced_gpu_ns, 0) / 3.6e12 AS unpriced_gpu_hours",
        *_trend(by),
    ]
    first = [] if _timed(by) else ["cost DESC NULLS LAST"]
    order = ", ".join([*first, *names, "currency", *apart])
    return f"SELECT {keys}, {', '.join(shown)} FROM ({groups}) ORDER BY {order}"


def _timed(by: Sequence[Dimension]) -> str | None:
    return next((one.name for one in by if one.name in TIMES), None)


def _trend(by: Sequence[Dimension]) -> list[str]:
    """The change against the day or month before, of the same of all other dimensions; none of days
    and months to come, which hold nothing but storage that is charged ahead; and which these
    are."""
    time = _timed(by)
    if time is None:
        return []
    names = [quoted(one.name) for one in by if one.name != time]
    others = ", ".join([*names, "currency", "of_image"])
    before = f"lag(cost) OVER (PARTITION BY {others} ORDER BY {time})"
    change = f"CAST(cost - {before} AS DOUBLE) / nullif({before}, 0)"
    here = f"CAST({time} AS VARCHAR) <= '{now_is(time)}'"
    return [f"CASE WHEN {here} THEN {change} END AS cost_change", f"NOT ({here}) AS {TO_COME}"]


def now_is(time: str) -> str:
    """The day or month that it is in UTC, as ISO 8601."""
    return f"{datetime.now(UTC):{'%Y-%m-%d' if time == 'day' else '%Y-%m'}}"


def _units(nano: str) -> str:
    """An integer of 1e-9 units as an exact decimal of units."""
    return f"CAST({nano} AS DECIMAL(28, 0)) * CAST(0.000000001 AS DECIMAL(10, 9))"


def _each(images: int) -> str:
    """The cost of so many images, rounded to the nearest 1e-9 unit."""
    return f"((cost * {images} + images // 2) // images)"


__all__ = ["FIGURES", "CostAnswer", "cost", "cost_of"]
