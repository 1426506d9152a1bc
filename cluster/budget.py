"""What a job may cost, and whether it has to stop now. Pure: time comes with the calls.

Reserve, run, settle: what earlier runs cost is settled; a worker's cost is what it reported, grown
by the time since; and each worker that lives is reserved the time that it may need to notice and
leave. A run stops while that still fits, so that the cap holds unless leaving takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from cluster.money import as_decimal
from conf.amounts import MOST_BUDGET, nano
from conf.schema import BudgetConfig, RunConfig

_NS_PER_HOUR = 3600 * 10**9
_NS = 10**9
CUT_OFF = "the store of the project's budget failed"
"""How the reason begins for which a job stops that could reserve no more, whatever is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Amounts in 1e-9 currency units, and workers' lifetimes in nanoseconds."""

    nano: int = 0
    ns: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(nano=self.nano + other.nano, ns=self.ns + other.ns)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(nano=self.nano - other.nano, ns=self.ns - other.ns)


NOTHING = Spent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the caps leave, 1e-9 currency units and nanoseconds of workers; None: no limit."""

    nano: int | None = None
    ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A worker's cost as it reported it; ``nano_per_hour`` None: it has no price."""

    spent: Spent
    nano_per_hour: int | None
    seen_at_s: float

    def at(self, now_s: float) -> Spent:
        """The cost by now: a worker that reports nothing is paid for all the same."""
        since_ns = max(0, _clock_ns(now_s) - _clock_ns(self.seen_at_s))
        return self.spent + Spent(nano=_cost(self.nano_per_hour, since_ns), ns=since_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most that a job, or all of a project, may come to; None: no limit. ``currency`` and
    ``keys``, how the names of both keys begin, are for people."""

    nano: int | None
    ns: int | None
    currency: str
    keys: str = "budget."

    @classmethod
    def of(cls, budget: BudgetConfig, currency: str) -> Caps:
        """Of the job, as configured; the values were checked."""
        return cls._parsed(budget.max_cost, budget.max_hours, currency, "budget.")

    @classmethod
    def of_project(cls, budget: BudgetConfig, currency: str) -> Caps:
        """Of all jobs of the project, as this one is configured."""
        cost, hours = budget.project_max_cost, budget.project_max_hours
        return cls._parsed(cost, hours, currency, "budget.project_")

    @classmethod
    def _parsed(cls, cost: str | None, hours: float | None, currency: str, keys: str) -> Caps:
        return cls(
            nano=None if cost is None else nano(cost, f"{keys}max_cost", MOST_BUDGET),
            ns=None if hours is None else int(Decimal(str(hours)) * _NS_PER_HOUR),
            currency=currency,
            keys=keys,
        )

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.nano is not None or self.ns is not None

    def share(self, spent: Spent) -> float:
        """How much of the tighter cap is used; 0 where there is none."""
        parts = [(spent.nano, self.nano), (spent.ns, self.ns)]
        return max(
            (used / cap if cap else 1.0 for used, cap in parts if cap is not None), default=0
        )

    def within(self, needed: Spent, has: Spent) -> bool:
        """Whether, of what is capped, there is as much as is needed."""
        enough = self.nano is None or has.nano >= needed.nano
        return enough and (self.ns is None or has.ns >= needed.ns)

    def used(self, spent: Spent) -> str:
        """How much of each cap is used, for people."""
        return ", ".join(f"{part} used" for part in self.parts(spent))

    def parts(self, spent: Spent) -> list[str]:
        """An amount of each cap, for people."""
        parts = []
        if self.nano is not None:
            parts.append(f"{_plain(spent.nano)} of {_plain(self.nano)} {self.currency}")
        if self.ns is not None:
            parts.append(f"{hours(spent)} of {self.ns / _NS_PER_HOUR:g} hours")
        return parts

    def limits(self) -> list[str]:
        """Each cap, by its key."""
        cost = [self.name("cost")] if self.nano is not None else []
        return [*cost, *([self.name("hours")] if self.ns is not None else [])]

    def exceeded(self, spent: Spent, reserved: Spent) -> str:
        """Why nothing more may be begun; "" while there is room."""
        if self.nano is not None and spent.nano + reserved.nano >= self.nano:
            return (
                f"{self.name('cost')} is all but used: {self.money(spent)} are spent, "
                f"{self.money(reserved)} are kept for workers to leave in order"
            )
        if self.ns is not None and spent.ns + reserved.ns >= self.ns:
            return (
                f"{self.name('hours')} is all but used: workers lived "
                f"{hours(spent)} hours, {hours(reserved)} are kept for them to leave in order"
            )
        return ""

    def too_small(self, reserved: Spent, whom: str) -> str:
        """Why nothing could even begin with ``reserved`` for the leaving of ``whom``; "" where
        something can."""
        kept = f"kept for {whom} to leave in order"
        if self.nano is not None and reserved.nano >= self.nano:
            return f"{self.name('cost')} is too small: {self.money(reserved)} are {kept}"
        if self.ns is not None and reserved.ns >= self.ns:
            return f"{self.name('hours')} is too small: {hours(reserved)} hours are {kept}"
        return ""

    def name(self, what: Literal["cost", "hours"]) -> str:
        """One of both keys with its value."""
        if what == "cost":
            return f"{self.keys}max_cost={_plain(self.nano or 0)} {self.currency}"
        return f"{self.keys}max_hours={(self.ns or 0) / _NS_PER_HOUR:g}"

    def money(self, spent: Spent) -> str:
        """An amount for people."""
        return f"{_plain(spent.nano)} {self.currency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How far a job may go of its project's ``caps``: what all of its runs may come to by now,
    which grows as more is reserved, at ``most`` to what the other jobs leave. ``cut_off``: nothing
    can be reserved at present, whatever is left."""

    caps: Caps
    limit: Spent
    most: Spent
    cut_off: bool = False

    def exceeded(self, spent: Spent, reserved: Spent) -> str:
        """Why nothing more may be begun; "" while there is room."""
        both = spent + reserved
        if self.caps.nano is not None and both.nano >= self.limit.nano:
            return (
                f"{self._leaves(self.caps.name('cost'))} {self.caps.money(self.limit)}: "
                f"{self.caps.money(spent)} are spent, {self.caps.money(reserved)} are kept for "
                "workers to leave in order"
            )
        if self.caps.ns is not None and both.ns >= self.limit.ns:
            return (
                f"{self._leaves(self.caps.name('hours'))} {hours(self.limit)} hours: workers lived "
                f"{hours(spent)}, {hours(reserved)} are kept for them to leave in order"
            )
        return ""

    def _leaves(self, cap: str) -> str:
        if not self.cut_off:
            return f"{cap} leaves this job no more than"
        return (
            f"{CUT_OFF}, so that nothing more could be reserved: of {cap} this job had no more than"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What the accounts of workers add up to, so that nobody has to go through them: each clock
    reading in nanoseconds, ``rate_by_seen`` the sum of price by clock reading."""

    workers: int = 0
    spent: Spent = NOTHING
    reserved: Spent = NOTHING
    rate: int = 0
    seen_ns: int = 0
    rate_by_seen: int = 0

    def of(self, account: Account, reserved: Spent, sign: Literal[1, -1]) -> _Sums:
        """With one account more, or less."""
        rate, seen_ns = account.nano_per_hour or 0, _clock_ns(account.seen_at_s)
        return _Sums(
            workers=self.workers + sign,
            spent=self.spent + account.spent if sign > 0 else self.spent - account.spent,
            reserved=self.reserved + reserved if sign > 0 else self.reserved - reserved,
            rate=self.rate + sign * rate,
            seen_ns=self.seen_ns + sign * seen_ns,
            rate_by_seen=self.rate_by_seen + sign * rate * seen_ns,
        )

    def at(self, now_s: float) -> Spent:
        """As the accounts say together, rounded up once."""
        now_ns = _clock_ns(now_s)
        since = max(0, self.rate * now_ns - self.rate_by_seen)
        grown = Spent(nano=_up(since), ns=max(0, self.workers * now_ns - self.seen_ns))
        return self.spent + grown


class Budget:
    """The accounts of one run, each call at the same small cost however many there are. Not safe
    for threads: the coordinator holds its lock, and never calls with an earlier time.

    Args:
        settled: what earlier runs came to.
        leave_s: how long a worker may need to notice that it has to go, and to leave.
        allowance: what its project's budget leaves to the job; None: that has none.
    """

    def __init__(
        self, caps: Caps, settled: Spent, *, leave_s: float, allowance: Allowance | None = None
    ) -> None:
        self.allowance = allowance
        self._caps = caps
        self._settled = settled
        self._leave_s = leave_s
        self._accounts: dict[str, Account] = {}
        self._sums = _Sums()
        self._without_price: dict[str, None] = {}
        self._silent: set[str] = set()
        self._dearest = 0
        self.unpriced = False
        """Whether a worker without a price was seen: then not all that is spent is known."""
        self.priced = False
        """Whether a worker with a price was seen: until then nothing is known of this run."""

    def hired(self, worker: str) -> None:
        """A worker may begin any moment: until it says what it costs, it is reserved as much as
        the dearest that was seen."""
        if worker not in self._accounts:
            self._silent.add(worker)

    def report(self, worker: str, account: Account) -> None:
        """A worker's newest account."""
        self._silent.discard(worker)
        self._close(worker)
        self._accounts[worker] = account
        self.priced |= account.nano_per_hour is not None
        self._sums = self._sums.of(account, self._reserve_of(account), 1)
        if account.nano_per_hour is None:
            self._without_price[worker] = None
            self.unpriced = True
        self._dearest = max(self._dearest, account.nano_per_hour or 0)

    def gone(self, worker: str, now_s: float) -> None:
        """A worker ended, at the latest now: that is settled."""
        self._silent.discard(worker)
        account = self._close(worker)
        if account is not None:
            self._settled += account.at(now_s)

    def _close(self, worker: str) -> Account | None:
        self._without_price.pop(worker, None)
        account = self._accounts.pop(worker, None)
        if account is not None:
            self._sums = self._sums.of(account, self._reserve_of(account), -1)
        return account

    def spent(self, now_s: float) -> Spent:
        """Everything so far."""
        return self._settled + self._sums.at(now_s)

    def stop(self, now_s: float) -> str:
        """Why the run has to stop now; "" while it may go on."""
        spent, reserved = self.spent(now_s), self.reserved()
        for caps, limits in self._limits():
            if self._without_price and caps.nano is not None:
                worker = next(iter(self._without_price))
                return f"{caps.keys}max_cost cannot be kept: worker {worker} has no price"
            why = limits.exceeded(spent, reserved)
            if why:
                return why
        return ""

    def room(self, now_s: float) -> Room:
        """What the tightest caps leave to all that is still to be done."""
        spent = self.spent(now_s)
        own, project = self._caps, self.allowance
        nano = [] if own.nano is None else [own.nano]
        ns = [] if own.ns is None else [own.ns]
        if project is not None:
            nano += [] if project.caps.nano is None else [project.most.nano]
            ns += [] if project.caps.ns is None else [project.most.ns]
        return Room(
            nano=min(nano) - spent.nano if nano else None, ns=min(ns) - spent.ns if ns else None
        )

    @property
    def dearest(self) -> int | None:
        """The most that an hour of a worker costs, of those that were seen; None: of none."""
        return self._dearest or None

    def _limits(self) -> Iterator[tuple[Caps, Caps | Allowance]]:
        yield self._caps, self._caps
        if self.allowance is not None:
            yield self.allowance.caps, self.allowance

    def reserved(self) -> Spent:
        """What those who live, or may begin any moment, may still come to until they have left."""
        silent = reserve_of(self._dearest, self._leave_s, workers=len(self._silent))
        return self._sums.reserved + silent

    def _reserve_of(self, account: Account) -> Spent:
        return reserve_of(account.nano_per_hour, self._leave_s)


def leave_s(config: RunConfig) -> float:
    """How long a worker may need to leave: two beats to hear of it, and a commit."""
    return 2 * config.cluster.heartbeat_s + config.job.commit_seconds


def reserve_of(nano_per_hour: int | None, leave_s: float, *, workers: int = 1) -> Spent:
    """What workers at this price may still come to until they have left."""
    leave_ns = int(leave_s * _NS) * workers
    return Spent(nano=_cost(nano_per_hour, leave_ns), ns=leave_ns)


def _cost(nano_per_hour: int | None, ns: int) -> int:
    return _up((nano_per_hour or 0) * ns)


def _up(nano_per_hour_ns: int) -> int:
    """Rounded up: a cap is never passed by a rounding."""
    return -(-nano_per_hour_ns // _NS_PER_HOUR)


def _clock_ns(clock_s: float) -> int:
    return int(clock_s * _NS)


def hours(spent: Spent) -> str:
    """Hours for people."""
    return f"{spent.ns / _NS_PER_HOUR:.4g}"


def _plain(nano: int) -> str:
    return f"{as_decimal(nano).normalize():f}"
