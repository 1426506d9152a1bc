"""What a job may cost: its caps, its part of its project's, what workers need to leave. Pure."""

from __future__ import annotations

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


def leave_s(config: RunConfig) -> float:
    """How long a worker may need to leave: two beats to hear of it, and a commit."""
    return 2 * config.cluster.heartbeat_s + config.job.commit_seconds


def reserve_of(nano_per_hour: int | None, leave_s: float, *, workers: int = 1) -> Spent:
    """What workers at this price may still come to until they have left."""
    leave_ns = int(leave_s * _NS) * workers
    return Spent(nano=rounded_up((nano_per_hour or 0) * leave_ns), ns=leave_ns)


def rounded_up(nano_per_hour_ns: int) -> int:
    """A price an hour times nanoseconds as an amount; a cap is never passed by a rounding."""
    return -(-nano_per_hour_ns // _NS_PER_HOUR)


def hours(spent: Spent) -> str:
    """Hours for people."""
    return f"{spent.ns / _NS_PER_HOUR:.4g}"


def _plain(nano: int) -> str:
    return f"{as_decimal(nano).normalize():f}"
