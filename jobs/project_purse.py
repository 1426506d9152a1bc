"""What a run may still spend of its project's budget: reserved ahead, given back at its end."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from cluster.budget import NOTHING, Allowance, Caps, Spent, leave_s, reserve_of
from cluster.coordinator import Snapshot
from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.project_budget import ProjectBudget
from cluster.ray_session import Resources
from cluster.store import Store
from cluster.store_access import LOOK_S
from conf.errors import (
    BudgetSpent,
    ConfigError,
    ImageMillError,
    StoreRefused,
    StoreUnavailable,
)
from conf.price_book import PriceBook
from conf.secrets import without_secrets
from jobs.figures import plural
from jobs.project import Project, Wish, job_key, records_of
from jobs.spending import caps_of, expected_price, settled

log = logging.getLogger("imagemill")
_PART = 50
"""A run reserves about a 50th of what is left ahead of what it spends, and no less than what it
spends in the next seconds; so a budget is told in some hundred records, however long it lasts, and
however many runs wait, there is some left for one more."""
_AHEAD_S = 10.0
_EVERY_S = 0.5
_LOOK_AT_OTHERS_EVERY_S = 10.0
_ASK_S = 2.0
"""How long one question of a run at work is tried again; a store that takes longer has failed."""
_FAREWELL_S = 5.0


class Purse:
    """A thread that asks the project's budget for more in the driver's place, before what was
    reserved is used; a context manager. A store that fails makes nobody wait: it is told once,
    asked again and again, and the run stops in order where its reservation ends.

    Args:
        job_caps: those of the job alone; more than them is never reserved.
        budget: the project's, in which the run has a share.
    """

    def __init__(self, project: Project, job_caps: Caps, budget: ProjectBudget) -> None:
        self._project = project
        self._job_caps = job_caps
        self._budget = budget
        self.allowance = self._allowance_in(budget)
        self._told = self.allowance
        self._snapshot: Snapshot | None = None
        self._before: tuple[float, Spent] | None = None
        self._others_due_s = 0.0
        self._warned = False
        self._asked_s: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="purse", daemon=True)

    def __enter__(self) -> Purse:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(_FAREWELL_S)

    def see(self, snapshot: Snapshot) -> Allowance | None:
        """Note where the run is; returns the allowance where it is another one by now."""
        self._snapshot = snapshot
        asked_s = self._asked_s
        late = asked_s is not None and time.monotonic() - asked_s > _ASK_S
        allowance = replace(self.allowance, cut_off=self.allowance.cut_off or late)
        if allowance == self._told:
            return None
        self._told = allowance
        return allowance

    def _work(self) -> None:
        while not self._over.wait(_EVERY_S):
            snapshot = self._snapshot
            if snapshot is None or snapshot.over_budget:
                continue
            try:
                self._keep_ahead(snapshot)
            except ImageMillError as error:
                self._cut_off(error)

    def _cut_off(self, error: ImageMillError) -> None:
        if self.allowance.cut_off:
            return
        self.allowance = replace(self.allowance, cut_off=True)
        log.warning(
            "nothing more can be reserved of the budget of project '%s': %s; it is tried again, "
            "and the run stops where what it has reserved ends: at %s in all",
            self._project.job.config.job.project,
            error,
            self._project.amount(self.allowance.limit),
            extra={"event": "project_cut_off"},
        )

    def _keep_ahead(self, snapshot: Snapshot) -> None:
        """Reserve more where what is reserved may be used up soon."""
        beyond = snapshot.spent - self._project.spent + snapshot.reserved
        seconds = self._next_seconds(snapshot.spent)

        def wanted(budget: ProjectBudget) -> Spent:
            return self._within_job(beyond + _ahead(self._project, budget, beyond, seconds))

        def covered() -> bool:
            half = _half(_ahead(self._project, self._budget, beyond, seconds))
            return self._covers(self._within_job(beyond + half))

        if covered():
            return
        self._reserve(wanted)
        if covered() or time.monotonic() < self._others_due_s:
            return
        self._others_due_s = time.monotonic() + _LOOK_AT_OTHERS_EVERY_S
        self._project.settle_others()
        self._reserve(wanted)
        if not covered() and not self._warned:
            self._warned = True
            log.warning(
                "little is left of the budget of project '%s': %s",
                self._project.job.config.job.project,
                self._project.in_words(self._budget),
                extra={"event": "project_short"},
            )

    def _reserve(self, wanted: Wish) -> None:
        self._asked_s = time.monotonic()
        try:
            self._budget = self._project.reserve(wanted)
        finally:
            self._asked_s = None
        if self.allowance.cut_off:
            log.info(
                "the budget of project '%s' can be asked again",
                self._project.job.config.job.project,
                extra={"event": "project_reached"},
            )
        self.allowance = self._allowance_in(self._budget)

    def _next_seconds(self, spent: Spent) -> Spent:
        """About what the run spends in the next seconds, by the last ones."""
        now_s = time.monotonic()
        before_s, before = self._before or (now_s, spent)
        self._before = (now_s, spent)
        gone = spent - before
        factor = _AHEAD_S / (now_s - before_s) if now_s > before_s else 0.0
        return Spent(nano=int(gone.nano * factor), ns=int(gone.ns * factor))

    def _within_job(self, wanted: Spent) -> Spent:
        """No more than what the job's own caps leave beyond its earlier runs."""
        own, before = self._job_caps, self._project.spent
        return Spent(
            nano=wanted.nano if own.nano is None else min(wanted.nano, own.nano - before.nano),
            ns=wanted.ns if own.ns is None else min(wanted.ns, own.ns - before.ns),
        )

    def _covers(self, needed: Spent) -> bool:
        return self._project.caps.within(needed, self.allowance.limit - self._project.spent)

    def _allowance_in(self, budget: ProjectBudget) -> Allowance:
        """As the records say; nothing more where the share was given back and is not to be had
        again: then this driver was taken for dead."""
        share = self._project.share_in(budget)
        limit = self._project.spent if share is None else share.limit
        caps = self._project.caps
        return Allowance(caps=caps, limit=limit, most=budget.left(caps, job_key(self._project.job)))


@contextmanager
def project_purse(
    job: JobRecord, store: Store, book: PriceBook, size: Resources, *, shards: int, after: int
) -> Iterator[Purse | None]:
    """What the run after number ``after`` may spend of its project's budget, reserved before
    anything is started and given back at the end; None where nothing of the project is capped.

    Raises:
        ConfigError: nothing could begin with what is left, for a job that has not begun; or what
            the project has spent is not known, or cannot be asked.
        BudgetSpent: the same, for one that has.
    """
    spent = settled(job, store, PlanReader(store)) if after else NOTHING
    looking = store.with_patience(min(LOOK_S, store.patience_s))
    project = Project.of(job, looking, run=after + 1, spent=spent)
    if project is None:
        yield None
        return
    workers, least, seconds = _needs(job, book, size, shards)
    try:
        budget = _first_share(project, least, seconds, workers)
    except StoreUnavailable as error:
        raise StoreRefused(f"budget.store failed: {error}; nothing was started") from error
    except ImageMillError:
        project.settle()
        raise
    asking = replace(project, records=records_of(job, store.with_patience(_ASK_S)))
    try:
        log.info(
            "project '%s': %s",
            job.config.job.project,
            project.in_words(budget),
            extra={"event": "project_reserved"},
        )
        with Purse(asking, caps_of(job), budget) as purse:
            yield purse
    finally:
        project.settle()


def refuse_without_share(
    project: Project, book: PriceBook, size: Resources, shards: int, budget: ProjectBudget
) -> None:
    """Refuse as a run would that could begin with nothing; reserves nothing.

    Raises:
        ConfigError, BudgetSpent: see ``project_purse``.
    """
    workers, least, seconds = _needs(project.job, book, size, shards)
    _refuse_unpriced(project)
    if project.share_of(budget, least + seconds, least) is None:
        raise _nothing_left(project, budget, least, workers)


def _needs(
    job: JobRecord, book: PriceBook, size: Resources, shards: int
) -> tuple[int, Spent, Spent]:
    """How many workers begin, what they need to leave, and for the next seconds of their work."""
    workers = min(size.workers, max(1, shards))
    price = expected_price(job.config, book, size)
    least = reserve_of(price, leave_s(job.config), workers=workers)
    return workers, least, reserve_of(price, _AHEAD_S, workers=workers)


def _first_share(project: Project, least: Spent, seconds: Spent, workers: int) -> ProjectBudget:
    """Reserve, and where ``seconds`` of work are not left, once more without those that are
    dead."""

    def wanted(budget: ProjectBudget) -> Spent:
        return least + _ahead(project, budget, least, seconds)

    _refuse_unpriced(project)
    budget = project.reserve(wanted, least)
    share = project.share_in(budget)
    others = [one for one in budget.open if one != share]
    if others and (share is None or not project.caps.within(least + seconds, share.reserved)):
        log.info(
            "looking whether those that hold shares of the project's budget are still at work",
            extra={"event": "project_looking"},
        )
        project.settle_others()
        _refuse_unpriced(project)
        budget = project.reserve(wanted, least)
    if project.share_in(budget) is None:
        raise _nothing_left(project, budget, least, workers)
    return budget


def _ahead(project: Project, budget: ProjectBudget, beyond: Spent, seconds: Spent) -> Spent:
    """How far a run that needs ``beyond`` by now has to be ahead of it: a part of what is left, at
    least for the next ``seconds``."""
    left = budget.left(project.caps, job_key(project.job)) - project.spent - beyond
    return Spent(nano=max(left.nano // _PART, seconds.nano), ns=max(left.ns // _PART, seconds.ns))


def _refuse_unpriced(project: Project) -> None:
    unknown = [s for s in project.records.read().shares.values() if s.unpriced]
    if project.caps.nano is not None and unknown:
        raise ConfigError(
            f"budget.project_max_cost cannot be kept: {unknown[0].output} had workers without a "
            "price; nothing was started; cap the hours instead, which count all workers: "
            "budget.project_max_cost=null budget.project_max_hours=…"
        )


def _nothing_left(
    project: Project, budget: ProjectBudget, least: Spent, workers: int
) -> ImageMillError:
    caps, job = project.caps, project.job
    key = f"{caps.keys}{'max_cost' if caps.nano is not None else 'max_hours'}"
    needed = caps.too_small(least, plural(workers, "worker"))
    why = needed or (
        f"too little is left of the budget of project '{job.config.job.project}' for "
        f"{plural(workers, 'worker')} to begin and leave in order"
    )
    where = shlex.quote(without_secrets(job.config.output.path))
    first = project.run == 1
    how = f"give a higher {key}" if first else f"imagemill resume {where} {key}=…"
    wait = "wait for those that hold some, or " if budget.open and not needed else ""
    text = f"{why}: {project.in_words(budget)}; nothing was started; {wait}go on with more: {how}"
    return ConfigError(text) if first else BudgetSpent(text)


def _half(spent: Spent) -> Spent:
    return Spent(nano=spent.nano // 2, ns=spent.ns // 2)
