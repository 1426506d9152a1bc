"""Why rows are quarantined, in a few lines: counted where the report counts all rows, else over the
first tables of them, of which no more are read however large the job is.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.plan_file import PlanReader
from cluster.records import count_of
from cluster.settled import Settled
from cluster.shard_log import CountedCommit
from cluster.store import Store
from cluster.totals import states
from conf.errors import CorruptOutput, StoreRefused, StoreUnavailable
from jobs.figures import plural
from jobs.report.survey import Example, ReasonCount, Survey, rejected_rows

MOST_TABLES = 128
_SHOWN = 3
_LONGEST_LABEL = 40
_LONGEST_MESSAGE = 160
_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejections:
    """Why ``rows`` are quarantined: of the ``seen`` ones the most frequent ``reasons`` out of so
    many ``kinds``, and how many were rejected ``at_read``, so that only the input mends them.
    ``unknown``: why none could be seen; "" where they could.
    """

    rows: int
    seen: int = 0
    kinds: int = 0
    at_read: int = 0
    reasons: tuple[ReasonCount, ...] = ()
    unknown: str = ""

    @classmethod
    def of(cls, counts: Survey, *, rows: int) -> Rejections:
        """What was counted, over all rows or some."""
        kinds = len(counts.rejected)
        return cls(
            rows=rows,
            seen=counts.rejected.total(),
            kinds=kinds,
            at_read=counts.rejected_at_read,
            # a line that says that there is one more is no shorter than that one
            reasons=tuple(counts.reasons(kinds if kinds == _SHOWN + 1 else _SHOWN)),
        )

    @property
    def whole(self) -> bool:
        """Whether all of the rows were seen."""
        return not self.unknown and self.seen >= self.rows

    @property
    def hopeless(self) -> bool:
        """Whether no retry mends any of them."""
        return self.whole and self.at_read == self.seen


def rejections(
    store: Store, plan: PlanReader, rows: int, *, most_tables: int = MOST_TABLES
) -> Rejections:
    """Why so many ``rows`` are quarantined, by their first tables in the order of the plan."""
    counts = Survey()
    try:
        tables = list(_first_tables(store, plan, rows, most_tables))
        with ThreadPoolExecutor(_THREADS, "rejections") as pool:
            for table in pool.map(lambda item: rejected_rows(store, item), tables):
                counts.add_rejected(table)
    except (CorruptOutput, StoreRefused, StoreUnavailable) as error:
        return Rejections(rows=rows, unknown=str(error))
    return Rejections.of(counts, rows=rows)


def _first_tables(store: Store, plan: PlanReader, rows: int, most: int) -> Iterator[CountedCommit]:
    """Commits with quarantined rows, until these hold all of the rows or there are enough."""
    left = rows
    for state in states(store, plan, Settled.of(store).maybe_quarantined(range(plan.shards))):
        for item in state.commits:
            if item.quarantine and item.commit.quarantine is not None:
                yield item
                most -= 1
                left -= count_of(item.commit.quarantined)
                if most <= 0 or left <= 0:
                    return


def reason_lines(found: Rejections) -> list[str]:
    """The reasons for the terminal, each with a row that has it."""
    if found.unknown:
        return [f"why        not known: {found.unknown}"]
    lines = [f"why        {_reason(one)}" for one in found.reasons]
    rest = found.seen - sum(one.rows for one in found.reasons)
    if rest:
        more = found.kinds - len(found.reasons)
        lines.append(
            f"why        {plural(rest, 'row')} of {plural(more, 'more kind')}: see quarantine/ and "
            "the report"
        )
    if not found.whole:
        lines.append(
            f"why        counted over the first {found.seen:,} of {found.rows:,} quarantined rows; "
            "quarantine/ has all"
        )
    return lines


def _reason(one: ReasonCount) -> str:
    said = f"{plural(one.rows, 'row')}, {one.reason} at {one.stage}"
    if not one.examples:
        return said
    example = one.examples[0]
    return f"{said}; {_named(example)}: {_clipped(example.message, _LONGEST_MESSAGE)}"


def _named(example: Example) -> str:
    label = f" (id {_clipped(example.label, _LONGEST_LABEL)})" if example.label else ""
    return f"row {example.row_id:,}{label}"


def _clipped(text: str, most: int) -> str:
    """On one line, without what a terminal would obey."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"
