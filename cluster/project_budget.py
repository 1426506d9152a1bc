"""What the jobs of a project may cost together: who has reserved how much of it. Pure.

A project's budget is a numbered list of changes, each of which says what one job has from then on;
whoever writes number n has seen all before it, so that no two jobs ever reserve the same money.
What a job spent and what it reserved count alike, so the cap holds as long as each job stays within
what it reserved. All amounts of a job are absolute: a change that is made again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cluster.budget import NOTHING, Caps, Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShare:
    """What one job has of its project's budget. ``spent`` is what its ended runs came to, and
    ``reserved`` what run number ``run``, which calls itself ``nonce``, may come to beyond that; run
    0: none is at work. ``unpriced``: some of its workers had no price, so that more was spent.

    ``output`` and ``at`` (when this was written, ISO 8601) are for people.
    """

    job: str
    output: str
    spent: Spent
    reserved: Spent = NOTHING
    run: int = 0
    nonce: str = ""
    unpriced: bool = False
    at: str = ""

    @property
    def limit(self) -> Spent:
        """What all runs of the job may come to."""
        return self.spent + self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectBudget:
    """All shares after ``number`` changes, by job."""

    number: int = 0
    shares: Mapping[str, JobShare] = field(default_factory=dict)

    @property
    def used(self) -> Spent:
        """What is spent or reserved."""
        return sum((share.limit for share in self.shares.values()), NOTHING)

    @property
    def spent(self) -> Spent:
        """What is spent for sure."""
        return sum((share.spent for share in self.shares.values()), NOTHING)

    @property
    def reserved(self) -> Spent:
        """What runs hold that have not ended, whatever of it they have spent by now."""
        return sum((share.reserved for share in self.shares.values()), NOTHING)

    @property
    def open(self) -> tuple[JobShare, ...]:
        """The shares of jobs that have a run at work, or had one that never said that it ended."""
        return tuple(share for share in self.shares.values() if share.run)

    def left(self, caps: Caps, job: str) -> Spent:
        """What a job may have of the caps, given what the others have; what is not capped is 0."""
        others = replace_share(self, job, None).used
        return Spent(
            nano=0 if caps.nano is None else max(0, caps.nano - others.nano),
            ns=0 if caps.ns is None else max(0, caps.ns - others.ns),
        )


def replace_share(budget: ProjectBudget, job: str, share: JobShare | None) -> ProjectBudget:
    """The next state, in which the job has this share; None: it has none."""
    shares = {name: one for name, one in budget.shares.items() if name != job}
    if share is not None:
        shares[job] = share
    return ProjectBudget(number=budget.number + 1, shares=shares)


def reserve(
    budget: ProjectBudget, asked: JobShare, caps: Caps, *, least: Spent = NOTHING
) -> JobShare | None:
    """The share that a job gets for a run: what it asked for, or as much of it as is left; None
    where that is no more than ``least`` beyond what it has spent, or a later run is at work.

    A run never gets less than it has already.
    """
    before = budget.shares.get(asked.job)
    mine = before is not None and before.nonce == asked.nonce
    if before is not None and before.run > asked.run:
        return None
    has = before.reserved if before is not None and mine and before.run else NOTHING
    left = budget.left(caps, asked.job)
    nano = _granted(caps.nano, left.nano - asked.spent.nano, asked.reserved.nano, least.nano)
    ns = _granted(caps.ns, left.ns - asked.spent.ns, asked.reserved.ns, least.ns)
    if nano is None or ns is None:
        return None
    granted = Spent(nano=max(nano, has.nano), ns=max(ns, has.ns))
    return replace(asked, reserved=granted)


def _granted(cap: int | None, left: int, wanted: int, least: int) -> int | None:
    """What is not capped is noted all the same, for jobs that cap it."""
    if cap is None:
        return wanted
    found = min(wanted, left)
    return None if found <= max(0, least) else found


def settle(
    budget: ProjectBudget, job: str, nonce: str, spent: Spent, *, unpriced: bool, at: str
) -> JobShare | None:
    """The share of a job whose run is over, by what its own ledger says that all of its runs came
    to; None where nothing of that run is reserved any more, or a later run of the job is at work.

    What earlier runs came to stays spent, even where the output with its ledger was deleted.
    """
    before = budget.shares.get(job)
    if before is None or before.nonce != nonce:
        return None
    spent = Spent(nano=max(spent.nano, before.spent.nano), ns=max(spent.ns, before.spent.ns))
    settled = replace(before, spent=spent, reserved=NOTHING, run=0, unpriced=unpriced, at=before.at)
    return None if settled == before else replace(settled, at=at)
