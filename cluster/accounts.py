"""What a run has come to by now, and whether it has to stop. Pure: time comes with the calls.

Reserve, run, settle: what earlier runs cost is settled; a worker's cost is what it reported, grown
by the time since; and each worker that lives is reserved the time that it may need to notice and
leave. A run stops while that still fits, so that the cap holds unless leaving takes longer. What is
spent never falls: of workers that are paid by use, what the time since their reports may have cost
is reserved, not spent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cluster.budget import NOTHING, Allowance, Caps, Room, Spent, reserve_of, rounded_up

_NS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A worker's cost as it reported it; ``nano_per_hour`` None: it has no price. Each hour counts
    for as many hours as ``devices`` are billed: those of servers that work for it, or one."""

    spent: Spent
    nano_per_hour: int | None
    seen_at_s: float
    devices: int = 1

    def at(self, now_s: float) -> Spent:
        """The cost by now: a worker that reports nothing is paid for all the same."""
        return self.spent + self.since(now_s)

    def since(self, now_s: float) -> Spent:
        """What the time since the report comes to."""
        since_ns = max(0, _clock_ns(now_s) - _clock_ns(self.seen_at_s))
        nano = rounded_up((self.nano_per_hour or 0) * since_ns)
        return Spent(nano=nano, ns=since_ns * self.devices)

    def at_least(self, spent: Spent) -> Account:
        """The same report, of no less than was known to be spent: one that took longer on its way
        than the one before tells of a time that has been counted."""
        most = Spent(nano=max(self.spent.nano, spent.nano), ns=max(self.spent.ns, spent.ns))
        return replace(self, spent=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What the accounts of workers add up to, so that nobody has to go through them: each clock
    reading in nanoseconds, ``seen_ns`` the sum of devices by clock reading, ``rate_by_seen`` that
    of price."""

    devices: int = 0
    spent: Spent = NOTHING
    reserved: Spent = NOTHING
    rate: int = 0
    seen_ns: int = 0
    rate_by_seen: int = 0

    def of(self, account: Account, reserved: Spent, sign: Literal[1, -1]) -> _Sums:
        """With one account more, or less."""
        rate, seen_ns = account.nano_per_hour or 0, _clock_ns(account.seen_at_s)
        return _Sums(
            devices=self.devices + sign * account.devices,
            spent=self.spent + account.spent if sign > 0 else self.spent - account.spent,
            reserved=self.reserved + reserved if sign > 0 else self.reserved - reserved,
            rate=self.rate + sign * rate,
            seen_ns=self.seen_ns + sign * account.devices * seen_ns,
            rate_by_seen=self.rate_by_seen + sign * rate * seen_ns,
        )

    def since(self, now_s: float) -> Spent:
        """What the time since all reports comes to, rounded up once."""
        now_ns = _clock_ns(now_s)
        since = max(0, self.rate * now_ns - self.rate_by_seen)
        return Spent(nano=rounded_up(since), ns=max(0, self.devices * now_ns - self.seen_ns))


class Budget:
    """The accounts of one run, each call at the same small cost however many there are. Not safe
    for threads: the coordinator holds its lock, and never calls with an earlier time.

    Args:
        settled: what earlier runs came to.
        leave_s: how long a worker may need to notice that it has to go, and to leave.
        allowance: what its project's budget leaves to the job; None: that has none.
        by_use: whether workers cost what they report and no time beside it, such as those of
            servers that others use too.
    """

    def __init__(
        self,
        caps: Caps,
        settled: Spent,
        *,
        leave_s: float,
        allowance: Allowance | None = None,
        by_use: bool = False,
    ) -> None:
        self.allowance = allowance
        self._caps = caps
        self._settled = settled
        self._by_use = by_use
        self._untold = NOTHING
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
        before = self._close(worker)
        if before is not None:
            known = before.spent if self._by_use else before.at(account.seen_at_s)
            account = account.at_least(known)
        self._accounts[worker] = account
        self.priced |= account.nano_per_hour is not None
        self._sums = self._sums.of(account, self._reserve_of(account), 1)
        if account.nano_per_hour is None:
            self._without_price[worker] = None
            self.unpriced = True
        self._dearest = max(self._dearest, account.nano_per_hour or 0)

    def gone(self, worker: str, now_s: float) -> None:
        """A worker ended, at the latest now: that is settled. What one that is paid by use did not
        tell any more stays reserved."""
        self._silent.discard(worker)
        account = self._close(worker)
        if account is None:
            return
        self._settled += account.spent
        if self._by_use:
            self._untold += account.since(now_s)
        else:
            self._settled += account.since(now_s)

    def _close(self, worker: str) -> Account | None:
        self._without_price.pop(worker, None)
        account = self._accounts.pop(worker, None)
        if account is not None:
            self._sums = self._sums.of(account, self._reserve_of(account), -1)
        return account

    def spent(self, now_s: float) -> Spent:
        """Everything so far; never less than before."""
        told = self._settled + self._sums.spent
        return told if self._by_use else told + self._sums.since(now_s)

    def stop(self, now_s: float) -> str:
        """Why the run has to stop now; "" while it may go on."""
        spent, reserved = self.spent(now_s), self.reserved(now_s)
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

    def reserved(self, now_s: float) -> Spent:
        """What those who live, or may begin any moment, may still come to until they have left, and
        what use may have cost that was not told."""
        silent = reserve_of(self._dearest, self._leave_s, workers=len(self._silent))
        untold = self._untold + self._sums.since(now_s) if self._by_use else NOTHING
        return self._sums.reserved + silent + untold

    def _reserve_of(self, account: Account) -> Spent:
        alone = reserve_of(account.nano_per_hour, self._leave_s)
        return replace(alone, ns=alone.ns * account.devices)


def _clock_ns(clock_s: float) -> int:
    return int(clock_s * _NS)
