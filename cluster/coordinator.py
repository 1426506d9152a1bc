"""The coordinator: one per run, hands out shards and adds up progress.

A thin shell around the lease board: it brings the clock, the order of shards and the workers'
counters. It keeps nothing that the store does not know, and no call is made per row.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.accounts import Account, Budget
from cluster.budget import NOTHING, Allowance, Room, Spent
from cluster.leases import (
    Asked,
    Beat,
    Clock,
    Dismiss,
    Drain,
    Gone,
    Grant,
    Instruction,
    LeaseBoard,
    Returned,
    Revoke,
    Sealed,
    Survived,
    Trying,
    Wait,
)
from cluster.pace import Pace
from cluster.records import Ranges
from cluster.sealed_shard import SealedShard
from cluster.setbacks import Loss
from cluster.suspicion import Trial
from operators.engine import EngineInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows and images that count, and their cost in 1e-9 currency units."""

    rows: int = 0
    quarantined: int = 0
    images: int = 0
    amount_nano: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            rows=self.rows + other.rows,
            quarantined=self.quarantined + other.quarantined,
            images=self.images + other.images,
            amount_nano=self.amount_nano + other.amount_nano,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgress:
    """A worker's report: what the commits of each of its unsealed shards hold, and its engine's
    running totals.

    ``made`` counts the images that it finished in this life, whatever became of them, ``commits``
    the commits that landed, ``cost_nano`` what its life and its requests have cost, at
    ``nano_per_hour`` (None: it has no price). ``preempted``: it was told to go and is leaving.
    ``engine``: what its engine is, once there is one.
    """

    phase: str
    holding: Mapping[int, Counts]
    made: int
    occupied: int
    offered: int
    lifetime_ns: int
    commits: int = 0
    preempted: bool = False
    cost_nano: int = 0
    nano_per_hour: int | None = None
    engine: EngineInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatReply:
    """What a worker must know: shards that are no longer its own, whether to stop with all others,
    and whether to leave since its machine is being taken away."""

    revoked: tuple[int, ...]
    drain: bool
    preempted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The run at a glance. ``silent`` workers gave no sign of life for longer than a lease lasts;
    their shards are no longer their own. ``preempted`` ones were told to go. ``commits`` never goes
    back. ``engines``: the different engines that were at work; of each that which compiled longest.
    ``spent``: by this run, and by earlier ones where anything is capped; with ``unpriced``
    workers not all of it is known, and nothing of this run before one that is ``priced`` was seen.
    ``spent`` never goes back. ``reserved``: what those at work may still come to.
    ``over_budget``: why the run has to stop for it, or "". ``lost``: how many workers were lost, by
    how. ``useful``: how many workers would have something to do, ``rate``: images a second of one
    that is at work, None: not known yet. ``room``: what the caps leave, ``dearest``: the most that
    an hour of a worker was seen to cost.
    """

    shards: int
    sealed: int
    held: int
    counts: Counts
    made: int
    occupied: int
    offered: int
    lifetime_ns: int
    phases: tuple[str, ...]
    silent: tuple[str, ...]
    preempted: tuple[str, ...]
    commits: int
    finished: bool
    spent: Spent = NOTHING
    reserved: Spent = NOTHING
    unpriced: bool = False
    priced: bool = False
    over_budget: str = ""
    engines: tuple[EngineInfo, ...] = ()
    lost: Mapping[Loss, int] = field(default_factory=dict)
    useful: int = 0
    rate: float | None = None
    room: Room = Room()
    dearest: int | None = None


class CoordinatorLink(Protocol):
    """What a worker may say to its coordinator, over Ray or in the same process."""

    def acquire(self, worker: str) -> Grant | Wait | Dismiss: ...

    def sealed(self, worker: str, seal: SealedShard) -> None: ...

    def trying(self, worker: str, shard_id: int, trial: Trial) -> None: ...

    def survived(self, worker: str, shard_id: int) -> None: ...

    def returned(
        self, worker: str, shard_id: int, failed: bool, at_work: Ranges | None = None
    ) -> None: ...

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply: ...


class Coordinator:
    """Safe to call from several threads. See ``CoordinatorLink`` for what workers call.

    Args:
        shards, total, sealed: see ``LeaseBoard``.
        counts: what the shards hold that are sealed from the start.
        budget: what may be spent; None: anything.
    """

    def __init__(
        self,
        shards: Iterator[int],
        *,
        total: int,
        lease_s: float,
        sealed: int = 0,
        counts: Counts = Counts(),
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = LeaseBoard(shards, total=total, lease_s=lease_s, sealed=sealed)
        self._clock = clock
        self._lock = threading.Lock()
        self._revoked: dict[str, list[int]] = {}
        self._progress: dict[str, WorkerProgress] = {}
        self._gone: set[str] = set()
        self._past = (0, 0, 0, 0)
        self._sealed_counts = counts
        self._unsealed: dict[int, Counts] = {}
        self._past_commits = 0
        self._preempted: set[str] = set()
        self._engines: dict[EngineInfo, EngineInfo] = {}
        self._draining = False
        self._budget = budget
        self._over_budget = ""
        self._lost: Counter[Loss] = Counter()
        self._pace = Pace()

    def acquire(self, worker: str) -> Grant | Wait | Dismiss:
        """Ask for one more shard. A worker that lost shards must hear of it in a beat first, or it
        could not tell the lost hold from the new one."""
        with self._lock:
            if worker in self._gone:
                return Dismiss(worker=worker)
            now_s = self._clock()
            self._board.handle(Beat(worker=worker, now_s=now_s))
            self._route(self._board.handle(Clock(now_s=now_s)))
            if self._revoked.get(worker):
                return Wait(worker=worker)
            (answer,) = self._board.handle(Asked(worker=worker, now_s=now_s))
        assert isinstance(answer, Grant | Wait | Dismiss)
        return answer

    def sealed(self, worker: str, seal: SealedShard) -> None:
        """A shard is surely sealed, by this worker or before."""
        with self._lock:
            before = self._board.sealed
            self._board.handle(Sealed(worker=worker, shard_id=seal.shard_id))
            self._unsealed.pop(seal.shard_id, None)
            if self._board.sealed > before:
                self._sealed_counts += Counts(
                    rows=seal.committed,
                    quarantined=seal.quarantined,
                    images=seal.images,
                    amount_nano=sum(share.used_amount for share in seal.shares),
                )

    def trying(self, worker: str, shard_id: int, trial: Trial) -> None:
        """The worker begins with these rows of a suspect shard."""
        with self._lock:
            self._board.handle(Trying(worker=worker, shard_id=shard_id, trial=trial))

    def survived(self, worker: str, shard_id: int) -> None:
        """The rows of the worker's trial are done; the shard was given back."""
        with self._lock:
            self._board.handle(Survived(worker=worker, shard_id=shard_id))

    def returned(
        self, worker: str, shard_id: int, failed: bool, at_work: Ranges | None = None
    ) -> None:
        """A shard was given back unfinished; ``at_work``: what of it was in an engine that failed,
        None where that is not known."""
        event = Returned(worker=worker, shard_id=shard_id, failed=failed, at_work=at_work)
        with self._lock:
            self._board.handle(event)

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        """A sign of life with progress."""
        with self._lock:
            if worker in self._gone:
                return BeatReply(revoked=(), drain=True)
            self._progress[worker] = progress
            # a shard that was given back keeps what it holds; one that is lost is another's to tell
            self._unsealed |= {
                shard_id: counts
                for shard_id, counts in progress.holding.items()
                if self._board.is_held(shard_id, by=worker)
            }
            self._pace.report(worker, progress.made, self._clock())
            self._account(worker, progress)
            if progress.engine is not None:
                self._note_engine(progress.engine)
            self._board.handle(Beat(worker=worker, now_s=self._clock()))
            self._route(self._board.handle(Clock(now_s=self._clock())))
            return BeatReply(
                revoked=tuple(self._revoked.pop(worker, ())),
                drain=self._draining,
                preempted=worker in self._preempted,
            )

    def allow(self, allowance: Allowance) -> None:
        """How far the job may go by now of its project's budget; called by the supervisor."""
        with self._lock:
            if self._budget is not None:
                self._budget.allowance = allowance

    def hired(self, worker: str) -> None:
        """A worker was asked for on a node that is there; called by the supervisor."""
        with self._lock:
            if self._budget is not None and worker not in self._gone:
                self._budget.hired(worker)

    def begun(self, worker: str, nano_per_hour: int | None) -> None:
        """A worker's process is up and paid for, before its first beat; called by the supervisor.
        What is told again, or after a beat, changes nothing."""
        with self._lock:
            known = worker in self._gone or worker in self._progress
            if self._budget is not None and not known:
                now_s = self._clock()
                self._budget.report(
                    worker, Account(spent=NOTHING, nano_per_hour=nano_per_hour, seen_at_s=now_s)
                )
                self._watch_budget(now_s)

    def gone(self, worker: str, crashed: bool) -> None:
        """A worker's process ended; called by the supervisor. What it said before and arrives later
        is not heard any more."""
        with self._lock:
            self._gone.add(worker)
            self._pace.gone(worker)
            if self._budget is not None:
                self._budget.gone(worker, self._clock())
            self._board.handle(Gone(worker=worker, crashed=crashed))
            self._revoked.pop(worker, None)
            self._preempted.discard(worker)
            last = self._progress.pop(worker, None)
            if last is not None:
                self._past_commits += last.commits
                made, occupied, offered, lifetime_ns = self._past
                self._past = (
                    made + last.made,
                    occupied + last.occupied,
                    offered + last.offered,
                    lifetime_ns + last.lifetime_ns,
                )

    def lost(self, loss: Loss) -> None:
        """One worker more was lost in this way; ``gone`` says which."""
        with self._lock:
            self._lost[loss] += 1

    def preempt(self, worker: str) -> None:
        """The worker's machine is being taken away: it hears so with its next beat."""
        with self._lock:
            self._preempted.add(worker)

    def drain(self) -> None:
        """Grant nothing any more; workers commit what is finished and leave."""
        with self._lock:
            self._draining = True
            self._board.handle(Drain())

    def snapshot(self) -> Snapshot:
        """Totals for the progress display, and who is silent. Time passes here too: when the only
        worker is silent, nobody else asks or beats."""
        with self._lock:
            now_s = self._clock()
            self._route(self._board.handle(Clock(now_s=now_s)))
            self._watch_budget(now_s)
            alive = list(self._progress.values())
            made, occupied, offered, lifetime_ns = self._past
            return Snapshot(
                shards=self._board.total,
                sealed=self._board.sealed,
                held=self._board.held,
                counts=sum(self._unsealed.values(), self._sealed_counts),
                made=made + sum(p.made for p in alive),
                occupied=occupied + sum(p.occupied for p in alive),
                offered=offered + sum(p.offered for p in alive),
                lifetime_ns=lifetime_ns + sum(p.lifetime_ns for p in alive),
                phases=tuple(p.phase for p in alive),
                silent=self._board.silent(now_s),
                preempted=tuple(name for name, p in self._progress.items() if p.preempted),
                commits=self._past_commits + sum(p.commits for p in alive),
                finished=self._board.finished,
                spent=self._budget.spent(now_s) if self._budget else NOTHING,
                reserved=self._budget.reserved(now_s) if self._budget else NOTHING,
                unpriced=self._budget is not None and self._budget.unpriced,
                priced=self._budget is not None and self._budget.priced,
                over_budget=self._over_budget,
                engines=tuple(self._engines.values()),
                lost=dict(self._lost),
                useful=self._board.useful,
                rate=self._pace.rate,
                room=self._budget.room(now_s) if self._budget else Room(),
                dearest=self._budget.dearest if self._budget else None,
            )

    def _account(self, worker: str, progress: WorkerProgress) -> None:
        if self._budget is None:
            return
        now_s = self._clock()
        engine = progress.engine
        account = Account(
            spent=Spent(nano=progress.cost_nano, ns=progress.lifetime_ns),
            nano_per_hour=progress.nano_per_hour,
            seen_at_s=now_s,
            devices=engine.devices if engine else 1,
        )
        self._budget.report(worker, account)
        self._watch_budget(now_s)

    def _watch_budget(self, now_s: float) -> None:
        """Grant nothing any more once a cap could be passed by those who are at work."""
        if self._budget is None or self._over_budget:
            return
        self._over_budget = self._budget.stop(now_s)
        if self._over_budget:
            self._draining = True
            self._board.handle(Drain())

    def _note_engine(self, engine: EngineInfo) -> None:
        kind = replace(engine, compile_seconds=0.0)
        slowest = self._engines.get(kind, kind)
        if engine.compile_seconds >= slowest.compile_seconds:
            self._engines[kind] = engine

    def _route(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Revoke):
                self._revoked.setdefault(instruction.worker, []).extend(instruction.shards)
