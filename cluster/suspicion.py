"""Which rows of a shard may be what its workers died of: bisection, as pure values.

A worker that dies takes the cause with it. So the shard is tried again alone, then half of its
suspects, and so on, until one row is left. It knows nothing of leases, workers or stores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.records import Ranges, count_of, offsets_of, ranges_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a worker tries of a suspect shard: ``rows`` of ``suspects``, all of them pending."""

    suspects: Ranges
    rows: Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Workers died over this shard, ``deaths`` of them, the first one perhaps over another.

    Args:
        rows: which rows may be to blame, as far as the deaths told; None: any that is pending.
        alone: the one row that was at work in the last death; None: there were others, or it is
            not known.
        unread: deaths before the worker could say what it tried, as when reading the rows kills.
    """

    deaths: int = 0
    rows: Ranges | None = None
    alone: Ranges | None = None
    unread: int = 0

    def died(self, trial: Trial | None, *, at_work: Ranges | None = None) -> Suspicion:
        """One more death, in a trial or before it began.

        Args:
            at_work: the rows that were in the engine, where that is known.
        """
        asked = self.deaths > 0
        seen = at_work or (trial.rows if trial else None)
        return Suspicion(
            deaths=self.deaths + 1,
            rows=seen or self.rows,
            alone=seen if seen and count_of(seen) == 1 else None,
            unread=self.unread + (asked and trial is None),
        )

    def survived(self, trial: Trial) -> Suspicion | None:
        """The rows of a trial are done: the other suspects are left, None when there is none."""
        left = offsets_of(trial.suspects) - offsets_of(trial.rows)
        return replace(self, rows=ranges_of(left), alone=None) if left else None

    def unreadable(self, max_attempts: int) -> bool:
        """Whether the shard kills so early that its rows cannot be told apart."""
        return self.unread >= max_attempts

    def convicted(self, trial: Trial, max_attempts: int) -> bool:
        """Whether the row of the trial is to be given up: the last worker died over it alone."""
        return trial.suspects == self.alone and self.deaths >= max_attempts

    def trial(self, pending: set[int]) -> Trial:
        """What to try next of the rows that are still pending, which must not be empty.

        After the first death all of them: the worker held other shards, one of which may be to
        blame. Then half of the suspects. When all suspects are done, the others come under
        suspicion: something else killed.
        """
        known = offsets_of(self.rows) if self.rows is not None else pending
        suspects = sorted(known & pending) or sorted(pending)
        whole = self.rows is None or len(suspects) == 1
        tried = suspects if whole else suspects[: (len(suspects) + 1) // 2]
        return Trial(suspects=ranges_of(suspects), rows=ranges_of(tried))
