"""How many workers this run wants now: what the driver knows, put to ``sizing``."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from cluster.budget import leave_s
from cluster.coordinator import Snapshot
from cluster.crew import Member
from cluster.ray_session import Resources
from cluster.sizing import Aim, Due, Left, Means, Question, Wish, wish
from conf.schema import RunConfig

START_S = 60.0
"""How long a worker may need to its first images before that is known: an assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staffing:
    """The workers of a run at a moment: what is wanted, how many are at work, and how many wait for
    machines that are still to come."""

    wish: Wish
    at_work: int
    waiting: int


class CrewSize:
    """Asked every few seconds; each answer costs a look at every worker."""

    def __init__(self, config: RunConfig, size: Resources, aim: Aim, shards: int) -> None:
        self._config = config
        self._size = size
        self._aim = aim
        self._shard_rows = aim.rows / max(1, shards)
        self._given_s = self._until_deadline_s()
        self._first_hired_s: float | None = None
        self._start_s: float | None = None

    def ask(
        self, snapshot: Snapshot, crew: Collection[Member], *, room: int, stopping: str = ""
    ) -> Wish:
        """How many are wanted, where the nodes have ``room`` for so many more; nobody in a run that
        is ``stopping`` for a reason."""
        if stopping:
            return Wish(workers=0, keep=0, why=stopping)
        now_s = time.monotonic()
        self._note_start(snapshot, crew, now_s)
        start_s = START_S if self._start_s is None else self._start_s
        staying = [member for member in crew if member.leave_by_s is None]
        exact = self._config.cluster.workers
        most, why = self._most(len(staying) + room)
        return wish(
            Question(
                left=self._left(snapshot),
                means=self._means(snapshot, start_s),
                due=self._due(snapshot),
                ready_s=[max(0.0, one.hired_at_s + start_s - now_s) for one in staying],
                start_s=start_s,
                least=self._size.least,
                most=most,
                most_why=why,
                least_why="cluster.min_workers" if exact is None else "cluster.workers",
            )
        )

    def _note_start(self, snapshot: Snapshot, crew: Collection[Member], now_s: float) -> None:
        """Learn how long the first one took from being asked for to its first images."""
        if self._start_s is not None:
            return
        if self._first_hired_s is None:
            self._first_hired_s = min((one.hired_at_s for one in crew), default=None)
        elif snapshot.made:
            self._start_s = now_s - self._first_hired_s

    def _most(self, fitting: int) -> tuple[int, str]:
        """How many there may be, and who says so."""
        size = self._size
        exact = self._config.cluster.workers is not None
        key = "cluster.workers" if exact else "cluster.max_workers"
        if size.most is None or (fitting < size.most and not size.grows):
            return fitting, "as many as fit"
        return size.most, key

    def _left(self, snapshot: Snapshot) -> Left:
        counts = snapshot.counts
        images_a_row = float(self._config.sampling.num_images)
        if counts.rows:
            images_a_row = counts.images / counts.rows
        rows = max(0, self._aim.rows - counts.rows - counts.quarantined)
        return Left(
            images=rows * images_a_row,
            shard_images=self._shard_rows * images_a_row,
            useful=snapshot.useful,
        )

    def _means(self, snapshot: Snapshot, start_s: float) -> Means:
        return Means(
            nano=snapshot.room.nano,
            ns=snapshot.room.ns,
            nano_per_hour=snapshot.dearest or self._aim.nano_per_hour,
            each_s=start_s + self._config.job.commit_seconds + leave_s(self._config),
        )

    def _due(self, snapshot: Snapshot) -> Due | None:
        left_s = self._until_deadline_s()
        if left_s is None or self._given_s is None:
            return None
        measured = snapshot.rate is not None
        return Due(
            left_s=left_s,
            given_s=self._given_s,
            rate=snapshot.rate if measured else self._aim.rate,
            measured=measured,
        )

    def _until_deadline_s(self) -> float | None:
        if self._aim.deadline is None:
            return None
        return (self._aim.deadline - datetime.now(UTC)).total_seconds()
