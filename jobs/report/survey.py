"""Exact counts over what an output holds: its sampling mix, and why rows were quarantined.

One streaming pass over all shards' records that reads a few columns of each commit's tables. The
number of groups kept in memory is bounded; what comes after is counted as "other".
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.plan_file import PlanReader
from cluster.records import ObjectRef
from cluster.settled import Settled
from cluster.shard_log import CountedCommit
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import states
from conf.errors import CorruptOutput

MIX = {"sampler": ["sampler"], "size": ["width", "height"], "steps": ["steps"]}
"""What is counted over all images, and the metadata columns that it is made of."""

READ = "read"
_MIX_COLUMNS = ["sampler", "width", "height", "steps"]
_REASON_COLUMNS = ["stage", "reason", "message", "row_id", "id", "file", "row_in_file"]
_MOST_GROUPS = 4096
_MOST_REASONS = 1000
_EXAMPLES = 3
_LONGEST_MESSAGE = 300
_THREADS = 8
_OTHER = ("other", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One quarantined row; ``label`` is the user's id."""

    row_id: int
    label: str | None
    file: str
    row_in_file: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How many rows were quarantined for one reason, and up to three of them."""

    stage: str
    reason: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(slots=True)
class Mix:
    """Images by one property: value -> count. ``other``: images beyond the groups kept apart."""

    counts: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    other: int = 0

    def add(self, value: tuple[Any, ...], images: int) -> None:
        """Count some images."""
        if value in self.counts or len(self.counts) < _MOST_GROUPS:
            self.counts[value] += images
        else:
            self.other += images

    def top(self, limit: int) -> tuple[list[tuple[tuple[Any, ...], int]], int]:
        """The ``limit`` most frequent values, and the images of all others."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ranked[:limit], self.other + sum(count for _, count in ranked[limit:])


@dataclass(slots=True)
class Survey:
    """What the pass counted."""

    mix: dict[str, Mix] = field(default_factory=lambda: {name: Mix() for name in MIX})
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)

    @property
    def rejected_at_read(self) -> int:
        """Rows that the input is to blame for, so that no retry mends them."""
        return sum(rows for (stage, _), rows in self.rejected.items() if stage == READ)

    def add_images(self, table: Any) -> None:
        """Count a commit's metadata."""
        for name, columns in MIX.items():
            counted = table.group_by(columns).aggregate([([], "count_all")])
            values = zip(*(counted[column].to_pylist() for column in columns), strict=True)
            for value, images in zip(values, counted["count_all"].to_pylist(), strict=True):
                self.mix[name].add(value, images)

    def add_rejected(self, table: Any) -> None:
        """Count a commit's quarantined rows."""
        counted = table.group_by(["stage", "reason"], use_threads=False)
        for row in counted.aggregate([([], "count_all")]).to_pylist():
            group = (row["stage"], row["reason"])
            if group not in self.rejected and len(self.rejected) >= _MOST_REASONS:
                group = _OTHER
            self.rejected[group] += row["count_all"]
            examples = self.examples.setdefault(group, [])
            if len(examples) < _EXAMPLES:
                mine = (pc.field("stage") == row["stage"]) & (pc.field("reason") == row["reason"])
                few = table.filter(mine).slice(0, _EXAMPLES - len(examples))
                examples += [_example(one) for one in few.to_pylist()]

    def reasons(self, limit: int) -> list[ReasonCount]:
        """The ``limit`` most frequent reasons."""
        ranked = sorted(self.rejected.items(), key=lambda item: (-item[1], item[0]))
        return [
            ReasonCount(
                stage=stage, reason=reason, rows=rows, examples=tuple(self.examples[stage, reason])
            )
            for (stage, reason), rows in ranked[:limit]
        ]


def survey(store: Store, plan: PlanReader, *, images: bool = True, rejected: bool = True) -> Survey:
    """Count the sampling mix of ``images`` and the reasons of ``rejected`` rows that count.

    Without ``images`` only shards are read that may hold rejected rows.

    Raises:
        CorruptOutput: a table that a counted commit names does not exist or is damaged.
    """
    result = Survey()
    every = range(plan.shards)
    among = every if images else Settled.of(store).maybe_quarantined(every)
    with ThreadPoolExecutor(_THREADS, "survey") as pool:
        for state in states(store, plan, among):
            if images:
                for table in pool.map(lambda c: _images(store, c), state.commits):
                    if table is not None:
                        result.add_images(table)
            if rejected:
                for table in pool.map(lambda c: rejected_rows(store, c), state.commits):
                    if table is not None:
                        result.add_rejected(table)
    return result


def top_reasons(store: Store, plan: PlanReader, limit: int) -> list[ReasonCount]:
    """Why rows are quarantined now, most frequent first; released rows are not counted."""
    return survey(store, plan, images=False).reasons(limit)


def _images(store: Store, counted: CountedCommit) -> Any:
    metadata = counted.commit.metadata
    return None if metadata is None else _table(store, metadata, _MIX_COLUMNS)


def rejected_rows(store: Store, counted: CountedCommit) -> Any:
    """A commit's quarantined rows that count, for ``Survey.add_rejected``; None: there are none.

    Raises:
        CorruptOutput: the table that it names does not exist or is damaged.
    """
    quarantine = counted.commit.quarantine
    if quarantine is None or not counted.quarantine:
        return None
    return _table(store, quarantine, _REASON_COLUMNS)


def _table(store: Store, ref: ObjectRef, columns: list[str]) -> Any:
    data = store.get(ref.key)
    if data is None:
        raise CorruptOutput(f"{ref.key} is named by a counted commit but does not exist")
    try:
        return read_parquet(data, columns)
    except (pa.ArrowException, OSError) as error:
        raise CorruptOutput(f"{ref.key} is damaged: {error}") from error


def _example(row: dict[str, Any]) -> Example:
    message = row["message"] or ""
    if len(message) > _LONGEST_MESSAGE:
        message = message[: _LONGEST_MESSAGE - 1] + "…"
    return Example(
        row_id=row["row_id"],
        label=row["id"],
        file=row["file"],
        row_in_file=row["row_in_file"],
        message=message,
    )
