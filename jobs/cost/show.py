"""An answer as a table for the terminal, or as CSV, JSON or Parquet for a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq

from jobs.cost.ask import GPU_KINDS, OTHER_KINDS, TIMES, TO_COME, CostAnswer, now_is
from jobs.figures import money, number, plural, share

SHOWN_ROWS = 60
_NONE = "–"
Row = dict[str, Any]


def answer_lines(answer: CostAnswer) -> list[str]:
    """The answer for the terminal: the dearest rows, the totals, and what is not in them."""
    rows = answer.rows.slice(0, SHOWN_ROWS).to_pylist() if answer.by else []
    totals = answer.totals.to_pylist()
    lines = _aligned(answer, rows, totals)
    left = answer.rows.num_rows - len(rows)
    if answer.by and left:
        lines.append(f"and {plural(left, 'row')} more; --format csv, json or parquet has all")
    lines += ["", *[_made_of(total) for total in totals], *notes(answer)]
    return lines


def notes(answer: CostAnswer) -> list[str]:
    """What must be known beside the numbers."""
    said = answer.standing.lines()
    for total in answer.totals.to_pylist():
        if total["unpriced_lines"]:
            said.append(
                f"unpriced   {plural(total['unpriced_lines'], 'line')} with "
                f"{number(total['unpriced_gpu_hours'])} GPU hours: no price is known for them, so "
                "they are in no amount above"
            )
    said += _to_come(answer)
    if not answer.totals.num_rows:
        said.append("nothing was billed yet: no worker has written a stamp")
    return said


def _to_come(answer: CostAnswer) -> list[str]:
    """What of the sums is charged ahead."""
    if answer.to_come is None:
        return []
    time = next(name for name in answer.by if name in TIMES)
    found = []
    for total in answer.totals.to_pylist():
        ahead = [
            row["cost"] or Decimal(0)
            for row in answer.rows.to_pylist()
            if row[TO_COME] and row["currency"] == total["currency"]
        ]
        if any(ahead):
            amount, rest = sum(ahead, Decimal(0)), total["cost"] - sum(ahead, Decimal(0))
            found.append(
                f"{money(amount, total['currency'])} of {money(total['cost'], total['currency'])} "
                f"is charged ahead, {money(rest, total['currency'])} lies until {now_is(time)}"
            )
    amounts = "; ".join(found) or "it has no price"
    return [
        f"to come    images are kept until {answer.to_come}, and their storage lies on the days "
        f"for which they are kept: {amounts}"
    ]


def group_names(row: Row, by: Sequence[str]) -> list[str]:
    """What a row is of, for people; a day or month to come is said to be so."""
    return [
        _word(row[name]) + (" (to come)" if name in TIMES and row[TO_COME] else "") for name in by
    ]


def _made_of(total: Row) -> str:
    """What a total consists of, by kind."""
    parts = [
        f"{kind} {money(total[kind], total['currency'])}"
        + (f" ({share(float(total[kind] / total['cost']))})" if total["cost"] else "")
        for kind in GPU_KINDS + OTHER_KINDS
        if total[kind]
    ]
    return f"of it      {', '.join(parts) or 'nothing has an amount'}"


def _aligned(answer: CostAnswer, rows: Sequence[Row], totals: Sequence[Row]) -> list[str]:
    columns = _columns(answer)
    cells = [[*answer.by, *columns]]
    for row in rows:
        cells.append(group_names(row, answer.by) + [f(row) for f in columns.values()])
    for total in totals:
        names = ["total", *[""] * (len(answer.by) - 1)] if answer.by else []
        cells.append(names + [shown(total) for shown in columns.values()])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_padded(line, widths, len(answer.by))).rstrip() for line in cells]


def _padded(cells: Sequence[str], widths: Sequence[int], words: int) -> list[str]:
    return [
        cell.ljust(width) if place < words else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def _columns(answer: CostAnswer) -> dict[str, Callable[[Row], str]]:
    """Heading -> what stands below it; without what no row has."""
    columns: dict[str, Callable[[Row], str]] = {
        "cost": lambda row: _money(row, "cost"),
        "images": lambda row: f"{row['images']:,}",
        "per image": lambda row: _money(row, "cost_per_image"),
        "per 1,000": lambda row: _money(row, "cost_per_1000_images"),
        "waste": lambda row: _NONE if row["waste_share"] is None else share(row["waste_share"]),
        "GPU hours": lambda row: number(row["gpu_hours"]),
    }
    if "cost_change" in answer.rows.column_names:
        columns["change"] = lambda row: _change(row.get("cost_change"))
    if answer.unpriced_lines:
        columns["unpriced"] = lambda row: f"{row['unpriced_lines']:,}"
    return columns


def _money(row: Row, name: str) -> str:
    return _NONE if row[name] is None else money(row[name], row["currency"])


def _change(part: float | None) -> str:
    return _NONE if part is None else f"{100 * part:+.1f} %"


def _word(value: Any) -> str:
    """A dimension's value. None: the line has none, as a worker's idle time has no sampler."""
    return _NONE if value is None else str(value)


def as_csv(answer: CostAnswer) -> bytes:
    """The rows with all columns; what is not known is empty."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(answer.rows.column_names)
    for row in answer.rows.to_pylist():
        writer.writerow(["" if value is None else _exact(value) for value in row.values()])
    return sink.getvalue().encode()


def as_json(answer: CostAnswer) -> bytes:
    """Rows, totals and what must be known beside them. Amounts are texts, so that no digit goes."""
    plain = {
        "by": list(answer.by),
        "rows": [_plain(row) for row in answer.rows.to_pylist()],
        "totals": [_plain(row) for row in answer.totals.to_pylist()],
        "outputs": list(answer.standing.outputs),
        "unfinished": list(answer.standing.unfinished),
        "simulated": list(answer.standing.simulated),
        "copies": [list(urls) for urls in answer.standing.copies],
    }
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()


def as_parquet(answer: CostAnswer) -> bytes:
    """The rows; amounts are decimals."""
    sink = io.BytesIO()
    pq.write_table(answer.rows, sink, compression="zstd")
    return sink.getvalue()


def _plain(row: Row) -> Row:
    return {
        name: value if value is None or isinstance(value, int | float) else _exact(value)
        for name, value in row.items()
    }


def _exact(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


FORMATS = {"csv": as_csv, "json": as_json, "parquet": as_parquet}
