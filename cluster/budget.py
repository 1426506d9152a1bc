"""What a job may cost, and whether it has to stop now. Pure: time comes with the calls.

Reserve, run, settle: what earlier runs cost is settled; a worker's cost is what it reported, grown
by the time since; and each worker that lives is reserved the time that it may need to notice and
leave. A run stops while that still fits, so that the cap holds unless leaving takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cluster.money import as_decimal
from conf.price_book import nano
from conf.schema import BudgetConfig, RunConfig

_NS_PER_HOUR = 3600 * 10**9
_NS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Amounts in 1e-9 currency units, and workers' lifetimes in nanoseconds."""

    nano: int = 0
    ns: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(nano=self.nano + other.nano, ns=self.ns + other.ns)


NOTHING = Spent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A worker's cost as it reported it; ``nano_per_hour`` None: it has no price."""

    spent: Spent
    nano_per_hour: int | None
    seen_at_s: float

    def at(self, now_s: float) -> Spent:
        """The cost by now: a worker that reports nothing is paid for all the same."""
        since_ns = max(0, int((now_s - self.seen_at_s) * _NS))
        return self.spent + Spent(nano=_cost(self.nano_per_hour, since_ns), ns=since_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most that a job may come to; None: no limit. ``currency`` is for people."""

    nano: int | None
    ns: int | None
    currency: str

    @classmethod
    def of(cls, budget: BudgetConfig, currency: str) -> Caps:
        """As configured; the values were checked."""
        cost, hours = budget.max_cost, budget.max_hours
        return cls(
            nano=None if cost is None else nano(cost, "budget.max_cost"),
            ns=None if hours is None else int(Decimal(str(hours)) * _NS_PER_HOUR),
            currency=currency,
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

    def used(self, spent: Spent) -> str:
        """How much of each cap is used, for people."""
        parts = []
        if self.nano is not None:
            parts.append(f"{_plain(spent.nano)} of {_plain(self.nano)} {self.currency} used")
        if self.ns is not None:
            hours, cap = spent.ns / _NS_PER_HOUR, self.ns / _NS_PER_HOUR
            parts.append(f"{hours:.4g} of {cap:g} hours used")
        return ", ".join(parts)

    def exceeded(self, spent: Spent, reserved: Spent) -> str:
        """Why nothing more may be begun; "" while there is room."""
        if self.nano is not None and spent.nano + reserved.nano >= self.nano:
            return (
                f"budget.max_cost={_plain(self.nano)} {self.currency} is all but used: "
                f"{_plain(spent.nano)} {self.currency} are spent, {_plain(reserved.nano)} "
                f"{self.currency} are kept for workers to leave in order"
            )
        if self.ns is not None and spent.ns + reserved.ns >= self.ns:
            return (
                f"budget.max_hours={self.ns / _NS_PER_HOUR:g} is all but used: workers lived "
                f"{spent.ns / _NS_PER_HOUR:.4g} hours, {reserved.ns / _NS_PER_HOUR:.4g} are kept "
                "for them to leave in order"
            )
        return ""


class Budget:
    """The accounts of one run. Not safe for threads: the coordinator holds its lock.

    Args:
        settled: what earlier runs came to.
        leave_s: how long a worker may need to notice that it has to go, and to leave.
    """

    def __init__(self, caps: Caps, settled: Spent, *, leave_s: float) -> None:
        self._caps = caps
        self._settled = settled
        self._leave_s = leave_s
        self._accounts: dict[str, Account] = {}
        self.unpriced = False
        """Whether a worker without a price was seen: then not all that is spent is known."""

    def report(self, worker: str, account: Account) -> None:
        """A worker's newest account."""
        self._accounts[worker] = account
        self.unpriced |= account.nano_per_hour is None

    def gone(self, worker: str, now_s: float) -> None:
        """A worker ended, at the latest now: that is settled."""
        account = self._accounts.pop(worker, None)
        if account is not None:
            self._settled += account.at(now_s)

    def spent(self, now_s: float) -> Spent:
        """Everything so far."""
        return sum((account.at(now_s) for account in self._accounts.values()), self._settled)

    def stop(self, now_s: float) -> str:
        """Why the run has to stop now; "" while it may go on."""
        unpriced = [name for name, a in self._accounts.items() if a.nano_per_hour is None]
        if unpriced and self._caps.nano is not None:
            return f"budget.max_cost cannot be kept: worker {unpriced[0]} has no price"
        return self._caps.exceeded(self.spent(now_s), self._reserved())

    def _reserved(self) -> Spent:
        accounts = self._accounts.values()
        return sum((reserve_of(a.nano_per_hour, self._leave_s) for a in accounts), Spent())


def leave_s(config: RunConfig) -> float:
    """How long a worker may need to leave: two beats to hear of it, and a commit."""
    return 2 * config.cluster.heartbeat_s + config.job.commit_seconds


def reserve_of(nano_per_hour: int | None, leave_s: float, *, workers: int = 1) -> Spent:
    """What workers at this price may still come to until they have left."""
    leave_ns = int(leave_s * _NS) * workers
    return Spent(nano=_cost(nano_per_hour, leave_ns), ns=leave_ns)


def _cost(nano_per_hour: int | None, ns: int) -> int:
    """Rounded up: a cap is never passed by a rounding."""
    return -(-(nano_per_hour or 0) * ns // _NS_PER_HOUR)


def _plain(nano: int) -> str:
    return f"{as_decimal(nano).normalize():f}"
