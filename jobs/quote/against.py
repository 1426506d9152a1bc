"""After a job: what was quoted against what it came to."""

from __future__ import annotations

from cluster.job_log import JobRecord
from cluster.totals import Bill, Totals
from jobs.figures import duration, format_money
from jobs.quote.kept import quoted_for


def quoted_lines(job: JobRecord, totals: Totals, closing: Bill) -> list[str]:
    """One line where this user asked on this machine for a quote of this very job; nothing
    otherwise, nor where workers are unpriced."""
    prices = [use.stamp.price for use in totals.workers.values() if use.stamp is not None]
    quoted = None if closing.unpriced else quoted_for(job.digest, prices)
    if quoted is None:
        return []
    inside = {True: "inside", False: "outside", None: "compared with no"}
    cost, lived_s = closing.total_amount, closing.total_ns / 1e9
    return [
        f"quoted     {format_money(round(quoted.cost.middle), job.currency)} "
        f"{quoted.cost.in_words()}, {duration(quoted.seconds.middle)} of workers; it came to "
        f"{format_money(cost, job.currency)}, {duration(lived_s)}: "
        f"{inside[quoted.cost.holds(cost)]} the interval"
    ]
