"""Quarantined rows that a retry can only reject again: those that were rejected at reading.

They are retried all the same, since a later version may read what an earlier one could not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cluster.job_log import last_run
from cluster.plan_file import PlanReader
from cluster.store import Store
from conf.errors import CorruptOutput
from jobs.execute import version
from jobs.figures import plural
from jobs.report.survey import READ, survey

log = logging.getLogger("imagemill")


def tell_hopeless(store: Store, plan: PlanReader) -> None:
    """Warn of them before a retry, or of a missing or damaged table that would tell: rows are named
    by their commits, and the retry makes that table needless."""
    last = last_run(store)
    try:
        rejected = survey(store, plan, images=False).rejected
    except CorruptOutput as error:
        log.warning(
            "why rows are quarantined is not known: %s",
            error,
            extra={"event": "hopeless_unknown"},
        )
        return
    before, now = last.version if last else version(), version()
    said = hopeless(rejected, rejected.total(), before=before, now=now)
    if said:
        log.warning("%s", said, extra={"event": "hopeless_rows"})


def hopeless(
    rejected: Mapping[tuple[str, str], int], quarantined: int, *, before: str, now: str
) -> str:
    """What to say of them before a retry; "" where there are none.

    Args:
        rejected: rows by (stage, reason).
        before, now: the versions of ImageMill of the last run and of this one.
    """
    reasons = {reason: rows for (stage, reason), rows in sorted(rejected.items()) if stage == READ}
    count = sum(reasons.values())
    if not count:
        return ""
    which = ", ".join(f"{reason} {rows:,}" for reason, rows in reasons.items())
    some = f"{count:,} of {plural(quarantined, 'quarantined row')}"
    were, they = ("was", "it is") if count == 1 else ("were", "they are")
    said = f"{some} {were} rejected when the input was read ({which})"
    if before != now:
        return f"{said} by version {before}; this is {now}, which may read more"
    only = "" if count < quarantined else "; this retry mends nothing and costs a start of workers"
    return f"{said}: {they} rejected again, unless the input is mended and run as a new job{only}"
