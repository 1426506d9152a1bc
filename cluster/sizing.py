"""How many workers a run wants, and why. Pure: numbers in, a number and a phrase out.

Without a deadline as many as there may be. With one the fewest that finish in time even where the
last shard begins last (Graham's bound for lists: work / workers + one shard), with a tenth of the
time left kept back. Nobody who has begun is sent away because fewer would do: the start is paid,
and the work costs the same whoever does it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

MARGIN = 0.1
"""The part of the time left that is kept back: rates differ, and machines are lost."""
_KEEP_MARGIN = 2 * MARGIN
"""Who waits for a machine is dropped only where fewer finish in time with twice the margin, so that
nobody is dropped and asked for again by turns."""
UNKNOWN_FOR = 0.1
"""Once this part of the time has gone without a rate, as many are wanted as there may be."""
_NS_PER_HOUR = 3600 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a run is to do: all rows of its plan, finished by when; None: whenever that is.
    ``rate``: images a second of a worker as remembered, ``nano_per_hour`` what one is expected to
    cost; None: not known."""

    rows: int = 0
    deadline: datetime | None = None
    rate: float | None = None
    nano_per_hour: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left to do: ``images``, up to ``shard_images`` of them in a shard. ``useful``: the
    workers that hold shards and the shards that nobody holds, together."""

    images: float
    shard_images: float
    useful: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What is left of the caps: 1e-9 currency units, and nanoseconds of workers; None: not capped.
    ``nano_per_hour``: what a worker costs; None: not known yet. ``each_s``: how long a worker lives
    that starts, makes one commit and leaves."""

    nano: int | None = None
    ns: int | None = None
    nano_per_hour: int | None = None
    each_s: float = 0.0

    @property
    def workers(self) -> int | None:
        """How many it lets do so; None: any number."""
        each_ns = math.ceil(self.each_s * 1e9)
        found = []
        if self.ns is not None and each_ns:
            found.append(max(0, self.ns) // each_ns)
        if self.nano is not None and self.nano_per_hour and each_ns:
            each_nano = -(-self.nano_per_hour * each_ns // _NS_PER_HOUR)
            found.append(max(0, self.nano) // each_nano)
        return min(found, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A deadline: ``left_s`` until it, of ``given_s`` when the run began. ``rate``: images a second
    of a worker at work, ``measured`` in this run or remembered; None: not known."""

    left_s: float
    given_s: float
    rate: float | None
    measured: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What decides the size of a crew.

    Args:
        ready_s: for each worker there is or that was asked for, in how many seconds it makes
            images; 0 for one at work.
        start_s: how long one takes that is asked for now.
        least: how many there are to be where there is work for them, whatever they cost;
            ``least_why`` says by which key.
        most: how many there may be, as the configuration or the machines allow; ``most_why`` says
            which.
    """

    left: Left
    means: Means
    due: Due | None
    ready_s: Sequence[float]
    start_s: float
    least: int
    most: int
    most_why: str
    least_why: str = "cluster.min_workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How many ``workers`` a run wants, and ``why``. Those beyond ``keep`` that wait for a machine
    are needed no more.

    ``ends_in_s``: about when that many are done; None: there is no deadline or no rate.
    ``needed``: how many finish in time, whatever there may be; None: not known, or no number does.
    ``measured``: both go by what this run has measured.
    """

    workers: int
    keep: int
    why: str
    ends_in_s: float | None = None
    needed: int | None = None
    measured: bool = False


def wish(asked: Question) -> Wish:
    """How many workers are wanted now."""
    most, why = min(_limits(asked), key=lambda limit: limit[0])
    needed: int | None = None
    workers = keep = most
    if asked.due is not None:
        needed = _needed(asked, asked.due, MARGIN)
        if needed is not None and needed < most:
            workers, why = needed, _for_deadline(asked.due)
        with_more = _needed(asked, asked.due, _KEEP_MARGIN)
        keep = most if with_more is None else min(most, with_more)
    least = min(asked.least, asked.left.useful)
    if workers < least:
        workers = least
        why = why if asked.due is not None and asked.due.rate is None else asked.least_why
    return Wish(
        workers=workers,
        keep=max(workers, keep),
        why=why,
        ends_in_s=_ends_in_s(asked, workers),
        needed=needed if asked.due is not None and asked.due.rate else None,
        measured=asked.due is not None and asked.due.rate is not None and asked.due.measured,
    )


def _limits(asked: Question) -> Iterator[tuple[int, str]]:
    """The most that there may be, each with its reason; of equal ones the first is told."""
    yield asked.most, asked.most_why
    yield asked.left.useful, "no more shards are left to lease"
    affordable = asked.means.workers
    if affordable is not None:
        yield affordable, "what is left of the budget pays the start and a commit of no more"


def _for_deadline(due: Due) -> str:
    if due.rate is None:
        return "the deadline, until a rate is known"
    known = "" if due.measured else ", as remembered of earlier runs"
    return f"the deadline, at {due.rate:.3g} images/s each{known}"


def _needed(asked: Question, due: Due, margin: float) -> int | None:
    """The fewest that finish in time; None: no number does, or a rate should be known by now."""
    if due.rate is None:
        return 0 if due.left_s >= (1 - UNKNOWN_FOR) * due.given_s else None
    work_s, shard_s = asked.left.images / due.rate, asked.left.shard_images / due.rate
    missing_s = work_s - min(work_s, shard_s)
    time_s = due.left_s * (1 - margin) - shard_s
    if due.left_s <= 0 or not work_s:
        return 0 if not work_s else None
    ready = sorted(asked.ready_s)
    for number, ready_s in enumerate(ready, start=1):
        missing_s -= max(0.0, time_s - ready_s)
        if missing_s <= 0:
            return number
    if missing_s <= 0:
        return 1
    each_s = time_s - asked.start_s
    return len(ready) + math.ceil(missing_s / each_s) if each_s > 0 else None


def _ends_in_s(asked: Question, workers: int) -> float | None:
    """When the work is done that those who are ready first share, each from when it is."""
    if asked.due is None or asked.due.rate is None:
        return None
    work_s = asked.left.images / asked.due.rate
    there = heapq.nsmallest(max(workers, 1), asked.ready_s)
    ready = [*there, *[asked.start_s] * (max(workers, 1) - len(there))]
    waited = 0.0
    for count, ready_s in enumerate(ready, start=1):
        waited += ready_s
        ends_s = (work_s + waited) / count
        if count == len(ready) or ends_s <= ready[count]:
            return ends_s
    return None
