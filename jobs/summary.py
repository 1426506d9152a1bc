"""The end of a run in a few lines of plain text. Printing is the caller's."""

from __future__ import annotations

import shlex

from cluster import layout
from cluster.budget import CUT_OFF
from cluster.job_log import JobRecord
from cluster.money import as_decimal
from cluster.totals import Bill, Totals
from conf.secrets import without_secrets
from jobs.figures import (
    COST_UNKNOWN,
    MEND,
    SIMULATED,
    Figures,
    cost_unknown,
    duration,
    estimated,
    figures_of,
    format_money,
    is_simulated,
    money,
    named_once,
    number,
    plural,
    share,
    size,
    unpriced,
    why_empty,
)
from jobs.finish import Finish
from jobs.quote.against import against_lines
from jobs.rejections import reason_lines
from jobs.spending import keys_to_go_on

_MOST_BROKEN = 2
_LONGEST_LINE = 300


def summary_lines(job: JobRecord, finish: Finish, status: int) -> list[str]:
    """What became of the rows, what it took, what it cost, where it is and what to do next."""
    totals, facts = finish.totals, finish.facts
    figures = figures_of(totals, finish.bill)
    lines = [_rows(totals)]
    if finish.rejected is not None:
        lines += reason_lines(finish.rejected)
    if is_simulated(job.config):
        lines.append(SIMULATED)
    lines.append(_images(totals, figures))
    lines.append(_cost(finish.bill, figures, job.currency))
    lines += against_lines(finish.against, job.currency)
    if unpriced(finish.bill):
        lines.append(f"unpriced   {unpriced(finish.bill)}")
    if estimated(finish.bill):
        lines.append(f"estimated  {estimated(finish.bill)}")
    if facts.wall_s:
        lines.append(f"this run   {duration(facts.wall_s)}{_restarts(facts.restarts)}")
    if facts.deadline:
        lines.append(f"deadline   {facts.deadline}")
    lines += _broken(facts.broken_files)
    where = without_secrets(job.config.output.path)
    lines.append(f"output     {where}")
    if layout.REPORT in finish.written:
        lines.append(f"report     {where.rstrip('/')}/{layout.REPORT}")
    if facts.reason:
        lines.append(f"stopped    {facts.reason}")
    lines += _verdict(job, figures, finish, status)
    lines += _incomplete(finish, status)
    return [_clipped(line) for line in lines + _next(job, where, finish)]


def _rows(totals: Totals) -> str:
    states = [
        f"{totals.committed:,} committed",
        f"{totals.quarantined:,} quarantined",
        f"{totals.pending:,} pending",
    ]
    return f"rows       {totals.rows:,}: {', '.join(states)}"


def _images(totals: Totals, figures: Figures) -> str:
    parts = [f"{totals.images:,} ({size(totals.image_bytes)})"]
    if figures.images_per_second is not None:
        parts[0] += f" in {duration(figures.active_s)} of workers"
        parts.append(f"{number(figures.images_per_second)} images/s")
    if figures.fill is not None:
        why = why_empty(figures)
        parts.append(f"batch {share(figures.fill)} full{f' ({why})' if why else ''}")
    return f"images     {', '.join(parts)}"


def _cost(closing: Bill, figures: Figures, currency: str) -> str:
    if cost_unknown(closing):
        return f"cost       {COST_UNKNOWN}"
    line = f"cost       {format_money(closing.total_amount, currency)}"
    if figures.cost_per_image is not None and not closing.unpriced:
        line += f", {money(figures.cost_per_image, currency)} an image"
    if closing.total_ns:
        line += f"; {share(closing.ns['used'] / closing.total_ns)} of the paid time made images"
    return line


def _restarts(restarts: int) -> str:
    return f", {plural(restarts, 'worker')} replaced" if restarts else ""


def _broken(files: tuple[str, ...]) -> list[str]:
    lines = [f"left out   {without_secrets(named_once(file))}" for file in files[:_MOST_BROKEN]]
    if len(files) > _MOST_BROKEN:
        lines.append(f"left out   {plural(len(files) - _MOST_BROKEN, 'more input file')}")
    return lines


def _verdict(job: JobRecord, figures: Figures, finish: Finish, status: int) -> list[str]:
    """Why a finished job ends with status 1."""
    allowed = job.config.job.max_quarantined
    if status != 1 or finish.totals.quarantined <= allowed * finish.totals.rows:
        return []
    return [
        f"too many   {share(figures.quarantined_share)} of the rows are quarantined; "
        f"job.max_quarantined={allowed:g} allows {share(allowed)}"
    ]


def _incomplete(finish: Finish, status: int) -> list[str]:
    """What to do about input files that were left out."""
    count = len(finish.facts.broken_files)
    if status != 1 or not count:
        return []
    was, them = ("was", "it") if count == 1 else ("were", "them")
    return [
        f"exit 1     {plural(count, 'input file')} {was} left out; the plan is fixed, so mend "
        f"{them} and start a new job with {them}"
    ]


def _next(job: JobRecord, where: str, finish: Finish) -> list[str]:
    quoted = shlex.quote(where)
    if not finish.finished and finish.facts.futile:
        kept = "what is committed here stays"
        if not finish.totals.committed:
            kept = f"nothing was committed, so {where} may be deleted"
        return [f"next       start again with another output.path; {kept}"]
    if not finish.finished:
        more = keys_to_go_on(finish.facts.reason)
        return [*_left(job, finish), f"next       imagemill resume {quoted}{more}"]
    if not finish.totals.quarantined:
        return []
    if finish.rejected is not None and finish.rejected.hopeless:
        return [f"next       {MEND}"]
    return [f"next       imagemill retry {quoted}"]


def _left(job: JobRecord, finish: Finish) -> list[str]:
    """What is left to do where a budget ended the run, by what the rows so far have cost."""
    totals, done = finish.totals, finish.totals.committed + finish.totals.quarantined
    if not finish.facts.reason.startswith(("budget.", CUT_OFF)) or not done:
        return []
    left = f"left       {plural(totals.pending, 'row')}"
    if finish.bill.unpriced:
        return [left]
    cost = as_decimal(finish.bill.total_amount) / done * totals.pending
    return [f"{left}, about {money(cost, job.currency)} at what a row has cost so far"]


def _clipped(line: str) -> str:
    line = " ".join(line.splitlines())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


__all__ = ["format_money", "summary_lines"]
