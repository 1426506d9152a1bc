"""Lines that last over midnight, told by the day. Pure.

A worker lives for days and has one line for all of its idle time: by day it is charged to each day
of its lifetime (UTC) in proportion, so that the days sum exactly to the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_DAY = timedelta(days=1)
_MICRO = timedelta(microseconds=1)
_QUANTITY_DIGITS = 9


PART = pa.field("part", pa.int8())
"""Which part of its line this is: 0 its first, so that lines can be counted once; 1 its first in a
later month; 2 any other."""


def on_days(lines: pa.Table) -> pa.Table:
    """The same lines of the ledger, of which none lasts over midnight in UTC, and ``PART``."""
    last = pc.subtract(lines["period_end"], pa.scalar(_MICRO, pa.duration("us")))
    later = pc.greater(pc.floor_temporal(last, unit="day"), lines["period_start"])
    spanning = pc.fill_null(later, False)
    if not pc.any(spanning).as_py():
        return in_one_part(lines)
    parts = [part for line in lines.filter(spanning).to_pylist() for part in _parts(line)]
    split = pa.Table.from_pylist(parts, schema=lines.schema.append(PART))
    return pa.concat_tables([in_one_part(lines.filter(pc.invert(spanning))), split])


def in_one_part(lines: pa.Table) -> pa.Table:
    """Lines that have one part, with ``PART``."""
    return lines.append_column(PART, pa.repeat(pa.scalar(0, PART.type), lines.num_rows))


def _parts(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    start, end = line["period_start"], line["period_end"]
    whole = (end - start) // _MICRO
    for first, last in days_of(start, end):
        before, until = (first - start) // _MICRO, (last - start) // _MICRO
        yield {
            **line,
            "period_start": first,
            "period_end": last,
            "gpu_ns": _part(line["gpu_ns"], before, until, whole),
            "amount_nano": _part(line["amount_nano"], before, until, whole),
            "quantity": _part_of_quantity(line["quantity"], before, until, whole),
            PART.name: 0 if first == start else 1 if first.day == 1 else 2,
        }


def days_of(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The time from ``start`` up to ``end``, cut at each midnight in UTC."""
    while start < end:
        midnight = datetime(start.year, start.month, start.day, tzinfo=UTC) + _DAY
        yield start, min(midnight, end)
        start = midnight


def _part(total: int | None, before: int, until: int, whole: int) -> int | None:
    """What of ``total`` has come between two moments; over all of them exactly ``total``."""
    return None if total is None else total * until // whole - total * before // whole


def _part_of_quantity(total: Decimal | None, before: int, until: int, whole: int) -> Decimal | None:
    if total is None:
        return None
    part = _part(int(total.scaleb(_QUANTITY_DIGITS)), before, until, whole)
    assert part is not None
    return Decimal(part).scaleb(-_QUANTITY_DIGITS)
