"""A project's budget at work: what a run reserves of it, what ended runs gave back, in words.

The records are ``cluster.project_records``', what may be reserved is ``cluster.project_budget``'s.
Reserve, run, settle: a run has a share before it begins, asks for more while it goes on, and gives
back what it did not use; of a run that was killed whoever finds it does so, by its job's ledger.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cluster import layout
from cluster.budget import NOTHING, Caps, Spent, hours
from cluster.job_log import JobRecord, find_job, run_ended, run_opened
from cluster.lifetime import utc_now
from cluster.plan_file import PlanReader
from cluster.project_budget import JobShare, ProjectBudget, reserve, settle
from cluster.project_records import ProjectRecords
from cluster.store import Store
from cluster.store_access import LOOK_S
from cluster.totals import Bill, Totals, close, fold
from conf.errors import ConfigError, ImageMillError, StoreRefused, StoreUnavailable
from conf.secrets import without_secrets
from jobs.company import WATCH_S, watch
from jobs.figures import plural
from jobs.spending import project_caps, spent_by

log = logging.getLogger("imagemill")
_BEGINS_WITHIN = timedelta(minutes=15)
"""A run that has reserved and not begun after so long never will: its plan was written long ago."""
_NAMED = 3
Wish = Callable[[ProjectBudget], Spent]
"""What to reserve in a state; others may have changed it since it was last read."""


def job_key(job: JobRecord) -> str:
    """The job in its project's budget, wherever its output is moved to."""
    return hashlib.sha256(f"{job.digest}\n{job.created_at}".encode()).hexdigest()[:16]


def records_of(job: JobRecord, store: Store) -> ProjectRecords:
    """The budget of the job's project, reached as the job's ``store`` is.

    Raises:
        ConfigError: it cannot be reached in this way.
    """
    where = job.config.budget.store
    assert where is not None, "a cap of a project is refused without a place for it"
    try:
        place = store.elsewhere(where)
    except StoreRefused:
        raise
    except ConfigError as error:
        raise ConfigError(f"budget.store is of no use: {error}") from error
    return ProjectRecords(place, job.config.job.project, job.currency)


def check_records(job: JobRecord, store: Store) -> None:
    """Prove, before anything is started, that the budget of the job's project can be read and
    written; nothing is done where nothing of the project is capped.

    Raises:
        StoreRefused: it cannot, and why.
        ConfigError, CorruptOutput: see ``ProjectRecords.read``.
    """
    if not project_caps(job).any:
        return
    with naming_the_store(job):
        records = records_of(job, store.with_patience(min(LOOK_S, store.patience_s)))
        records.read()
        records.probe()


@contextmanager
def naming_the_store(job: JobRecord) -> Iterator[None]:
    """Where the budget of the job's project cannot be read or written inside, the error names it.

    Raises:
        StoreRefused: it cannot, and why.
    """
    try:
        yield
    except (StoreRefused, StoreUnavailable) as error:
        raise StoreRefused(
            f"budget.store cannot hold the budget of project '{job.config.job.project}': {error}; "
            "nothing was started"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A job, and the budget that it shares with the others of its project. ``store`` is the job's,
    ``run`` the number of its run that reserves, ``nonce`` that run's own name."""

    job: JobRecord
    store: Store
    caps: Caps
    records: ProjectRecords
    run: int
    nonce: str
    spent: Spent

    @classmethod
    def of(cls, job: JobRecord, store: Store, *, run: int, spent: Spent) -> Project | None:
        """None where nothing of the project is capped.

        Args:
            spent: what all earlier runs of the job came to.
        """
        caps = project_caps(job)
        if not caps.any:
            return None
        return cls(
            job=job,
            store=store,
            caps=caps,
            records=records_of(job, store),
            run=run,
            nonce=secrets.token_hex(8),
            spent=spent,
        )

    def reserve(self, wanted: Spent | Wish, least: Spent = NOTHING) -> ProjectBudget:
        """Reserve so much beyond what earlier runs came to, or what is left of it.

        Raises:
            ConfigError, CorruptOutput, StoreUnavailable: see ``ProjectRecords.change``.
        """

        def step(budget: ProjectBudget) -> JobShare | None:
            amount = wanted(budget) if callable(wanted) else wanted
            found = self.share_of(budget, amount, least)
            before = budget.shares.get(job_key(self.job))
            if found is None or before is None:
                return found
            return before if found == replace(before, at=found.at) else found

        return self.records.change(step)

    def share_of(self, budget: ProjectBudget, wanted: Spent, least: Spent) -> JobShare | None:
        """What this run would get, see ``cluster.project_budget.reserve``; nothing is reserved."""
        asked = JobShare(
            job=job_key(self.job),
            output=without_secrets(self.job.config.output.path),
            spent=self.spent,
            reserved=wanted,
            run=self.run,
            nonce=self.nonce,
            at=utc_now(),
        )
        return reserve(budget, asked, self.caps, least=least)

    def share_in(self, budget: ProjectBudget) -> JobShare | None:
        """What this run has; None: nothing, or no more."""
        share = budget.shares.get(job_key(self.job))
        return share if share is not None and share.run and share.nonce == self.nonce else None

    def settle(self) -> None:
        """Give back what this run has not used. A failure is a warning: others settle it."""
        try:
            key = job_key(self.job)
            _settle(records_of(self.job, self.store), key, self.nonce, _bill_of(self.store, key))
        except ImageMillError as error:
            log.warning(
                "what this run reserved of the budget of project '%s' is not given back yet: %s; "
                "jobs of the project that need it do so, and 'imagemill status %s'",
                self.job.config.job.project,
                error,
                shlex.quote(without_secrets(self.store.url)),
                extra={"event": "project_unsettled"},
            )

    def settle_others(self, *, watch_s: float = WATCH_S) -> None:
        """Give back what runs reserved that are over and did not do so themselves."""
        for share in self.records.read().open:
            if share.job != job_key(self.job):
                settle_if_over(self.records, share, self.store, watch_s)

    def amount(self, spent: Spent) -> str:
        """An amount of what is capped, for people."""
        return _amount(self.caps, spent)

    def in_words(self, budget: ProjectBudget) -> str:
        """What is left, who holds what, for people."""
        return in_words(self.caps, budget, mine=job_key(self.job))

    def left_in_words(self, budget: ProjectBudget) -> str:
        """As ``in_words``, with what this job could have."""
        left = _amount(self.caps, budget.left(self.caps, job_key(self.job)))
        return f"{self.in_words(budget)}; {left} left"


def _bill_of(store: Store, key: str) -> Bill:
    """What the job in an output comes to; nothing where it, or its plan, was never written."""
    found = find_job(store)
    mine = found is not None and job_key(found) == key
    planned = mine and store.exists(layout.PLAN_SHARDS) and store.exists(layout.PLAN_INPUTS)
    return close(fold(store, PlanReader(store)) if planned else Totals(), 0)


def _settle(records: ProjectRecords, job: str, nonce: str, bill: Bill) -> None:
    """Note what a job came to, and that its run is over."""

    def step(budget: ProjectBudget) -> JobShare | None:
        unpriced = bool(bill.unpriced)
        return settle(budget, job, nonce, spent_by(bill), unpriced=unpriced, at=utc_now())

    records.change(step)


def settle_if_over(
    records: ProjectRecords, share: JobShare, reached: Store, watch_s: float = WATCH_S
) -> bool:
    """Whether the run of a share is over and was settled here. A store that does not answer leaves
    it as it is.

    Args:
        reached: any store that is reached as the output of the share is.
    """
    try:
        store = reached.elsewhere(share.output)
        if not _is_over(share, store, watch_s):
            return False
        _settle(records, share.job, share.nonce, _bill_of(store, share.job))
    except ImageMillError as error:
        log.debug("%s is not settled: %s", share.output, error, extra={"event": "not_settled"})
        return False
    log.info(
        "%s no longer holds a share of the project's budget: its run %d is over",
        share.output,
        share.run,
        extra={"event": "project_settled"},
    )
    return True


def project_line(job: JobRecord, store: Store, *, over: bool) -> str:
    """The budget of the job's project for people, "" where it has none; what the job's last run
    holds, which is ``over``, is given back first."""
    caps, key = project_caps(job), job_key(job)
    if not caps.any:
        return ""
    try:
        records = records_of(job, store)
        share = records.read().shares.get(key)
        if share is not None and share.run and (over or not run_opened(store, share.run)):
            mine = replace(share, output=store.url)  # wherever it was moved to
            settle_if_over(records, mine, store, watch_s=0)
        told = in_words(caps, records.read())
    except ImageMillError as error:
        told = f"its budget is not known: {error}"
    return f"{job.config.job.project}: {told}"


def _is_over(share: JobShare, store: Store, watch_s: float) -> bool:
    if not run_opened(store, share.run):
        age = datetime.now(UTC) - datetime.fromisoformat(share.at)
        return age > _BEGINS_WITHIN
    return run_ended(store, share.run) or watch(store, share.run, watch_s=watch_s) is None


def in_words(caps: Caps, budget: ProjectBudget, *, mine: str = "") -> str:
    """What ended runs have spent of a project's budget, and what others hold, by name; the job
    ``mine`` is this one."""
    ended = [share for share in budget.shares.values() if share.spent != NOTHING]
    spent = " and ".join(caps.parts(budget.spent)) + " spent"
    if ended:
        spent += f" by {plural(len(ended), 'job')}"
    holders = sorted(budget.open, key=lambda share: share.job != mine)
    if not holders:
        return f"{spent}; nothing reserved"
    named = [
        f"{'this run' if share.job == mine else f'{share.output} (run {share.run})'} "
        f"{_amount(caps, share.reserved)}"
        for share in holders[:_NAMED]
    ]
    if len(holders) > _NAMED:
        named.append(plural(len(holders) - _NAMED, "other"))
    return f"{spent}; {_amount(caps, budget.reserved)} reserved: {', '.join(named)}"


def _amount(caps: Caps, spent: Spent) -> str:
    found = [caps.money(spent)] if caps.nano is not None else []
    return " and ".join([*found, *([f"{hours(spent)} hours"] if caps.ns is not None else [])])
