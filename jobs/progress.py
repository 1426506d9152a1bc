"""Progress while a job runs: a bar on a terminal, one line a while elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cluster.coordinator import Snapshot
from jobs.summary import format_money

log = logging.getLogger("imagemill")
_LINE_EVERY_S = 15.0
_RATE_WINDOW_S = 20.0


class ProgressDisplay:
    """Shows snapshots of a run; a context manager. ``rows`` is the number of input rows; what is
    spent is that of all runs where the job is ``capped``, else that of this run."""

    def __init__(
        self, console: Console, *, rows: int, currency: str, simulated: bool, capped: bool
    ) -> None:
        self._rows = rows
        self._currency = currency
        self._whose = "so far" if capped else "in this run"
        self._mark = "simulated " if simulated else ""
        self._seen: list[tuple[float, int]] = []
        self._line_due_s = time.monotonic() + _LINE_EVERY_S
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rows"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[facts]}"),
                console=console,
            )
            self._task = self._bar.add_task("starting", total=rows, facts="")

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show the newest snapshot."""
        done = snapshot.counts.rows + snapshot.counts.quarantined
        facts = self._facts(snapshot)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=facts, description=_phase(snapshot))
        elif time.monotonic() >= self._line_due_s:
            self._line_due_s = time.monotonic() + _LINE_EVERY_S
            log.info(
                "%s: %d of %d rows, %s",
                _phase(snapshot),
                done,
                self._rows,
                facts,
                extra={"event": "progress"},
            )

    def _facts(self, snapshot: Snapshot) -> str:
        now_s = time.monotonic()
        self._seen = [p for p in self._seen if now_s - p[0] <= _RATE_WINDOW_S]
        self._seen.append((now_s, snapshot.made))
        first_s, first_made = self._seen[0]
        rate = (snapshot.made - first_made) / (now_s - first_s) if now_s > first_s else 0.0
        fill = 100 * snapshot.occupied / snapshot.offered if snapshot.offered else 0.0
        cost = f"{format_money(snapshot.spent.nano, self._currency)} spent {self._whose}"
        if snapshot.unpriced:
            cost = "cost not known"
        elif not snapshot.priced and not snapshot.spent.nano:
            cost = "cost not known yet"
        return (
            f"{self._mark}{snapshot.made} images made, {rate:.1f}/s, fill {fill:.0f} %, "
            f"{snapshot.counts.quarantined} quarantined, {cost}"
        )


def _phase(snapshot: Snapshot) -> str:
    if not snapshot.phases:
        return "finishing" if snapshot.finished else "starting workers"
    if "running" in snapshot.phases:
        return "making images"
    return "loading the model" if "loading" in snapshot.phases else "finishing"
