"""A project's budget in a store: one numbered record a change, put-if-absent, as leases are.

``PROJECT/GROUP/NUMBER.json`` says what one job has from that change on; each 64th record repeats
all jobs, so that a reader folds at most 64. Nothing is ever deleted or replaced. Knows nothing of
jobs but what they reserve.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster import layout
from cluster.budget import Spent
from cluster.project_budget import JobShare, ProjectBudget, replace_share
from cluster.store import Store
from conf.errors import CommitConflict, CommitUnknown, ConfigError, CorruptOutput, StoreUnavailable

_SCHEMA = 1
_KIND = "ProjectBudget"
_WHOLE_EVERY = 64
_GROUP = 1000
_TRIES = 50
_THREADS = 16
Step = Callable[[ProjectBudget], JobShare | None]
"""The share that a job should have in a state; None: nothing is to be changed."""


class ProjectRecords:
    """The budget of one project. Not safe for threads.

    Args:
        store: with its root at ``budget.store``.
        currency: of all amounts; the first job of a project decides.
    """

    def __init__(self, store: Store, project: str, currency: str) -> None:
        self._store = store
        self._project = project
        self._currency = currency
        digest = hashlib.sha256(project.encode()).hexdigest()[:8]
        self._folder = f"{layout.safe_label(project)}-{digest}/"
        self._known = ProjectBudget()

    def probe(self) -> None:
        """Prove that records can be written here, by others at the same time too.

        Raises:
            StoreRefused: they cannot, and why.
        """
        self._store.probe("budget.store")

    def refuse_unwritable(self) -> None:
        """What of ``probe`` can be told without writing.

        Raises:
            StoreRefused: as ``probe``.
        """
        self._store.refuse_unwritable("budget.store")

    @property
    def only_read(self) -> str:
        """Where nothing but a try tells whether records can be written; "" where that is known."""
        return "" if self._store.local_root is not None else self._store.url

    def read(self) -> ProjectBudget:
        """The newest state.

        Raises:
            ConfigError: the project's budget is in another currency.
            CorruptOutput: a record is missing or damaged.
        """
        newest = self._newest()
        whole = newest - newest % _WHOLE_EVERY
        first = max(self._known.number + 1, whole)
        if first <= newest:
            with ThreadPoolExecutor(_THREADS, "project") as pool:
                for record in pool.map(self._record, range(max(1, first), newest + 1)):
                    self._known = self._after(record)
        return self._known

    def change(self, step: Step) -> ProjectBudget:
        """Add the change that ``step`` makes, in the state that it is then added to; returns the
        state afterwards, which is the one before where there was none to make.

        Raises:
            ConfigError, CorruptOutput: as ``read``.
            StoreUnavailable: the store did not answer, or others were faster again and again.
        """
        for _ in range(_TRIES):
            before = self.read()
            share = step(before)
            if share is None or share == before.shares.get(share.job):
                return before
            after = replace_share(before, share.job, share)
            try:
                self._store.put_if_absent(self._key(after.number), self._json(after, share))
            except (CommitConflict, CommitUnknown):
                continue  # what landed is read, and a change that is there is not made again
            self._known = after
            return after
        raise StoreUnavailable(
            f"{self._store.path(self._folder)}: others changed the project's budget {_TRIES} times "
            "in a row"
        )

    def _newest(self) -> int:
        """The number of the newest record; 0: there is none. A writer that was killed may have left
        a folder without one."""
        for group in sorted(self._store.folders(self._folder), reverse=True):
            entries = self._store.listing(f"{self._folder}{group}/")
            if entries:
                return max(layout.epoch_of(entry.key) for entry in entries)
        return 0

    def _key(self, number: int) -> str:
        return f"{self._folder}{number // _GROUP:05d}/{number:08d}.json"

    def _json(self, after: ProjectBudget, share: JobShare) -> bytes:
        plain: dict[str, Any] = {
            "schema": _SCHEMA,
            "kind": _KIND,
            "project": self._project,
            "currency": self._currency,
            "number": after.number,
            "share": dataclasses.asdict(share),
        }
        if after.number % _WHOLE_EVERY == 0:
            plain["all"] = [dataclasses.asdict(one) for one in after.shares.values()]
        return (json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n").encode()

    def _record(self, number: int) -> Mapping[str, Any]:
        key = self._key(number)
        try:
            plain: dict[str, Any] = json.loads(self._store.get(key) or b"")
            if (plain["schema"], plain["kind"], plain["number"]) != (_SCHEMA, _KIND, number):
                raise ValueError(f"it is no {_KIND} of schema {_SCHEMA} with number {number}")
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(number, error) from error
        if plain.get("currency") != self._currency:
            raise ConfigError(
                f"the budget of project '{self._project}' at {self._store.url} is in "
                f"{plain.get('currency')}, this job in {self._currency}; give it another "
                "budget.store, or a price book in that currency"
            )
        return plain

    def _after(self, plain: Mapping[str, Any]) -> ProjectBudget:
        number = plain["number"]
        try:
            if "all" in plain:
                shares = [_share(one) for one in plain["all"]]
                return ProjectBudget(number=number, shares={one.job: one for one in shares})
            share = _share(plain["share"])
            return replace_share(self._known, share.job, share)
        except (KeyError, TypeError) as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, error: Exception) -> CorruptOutput:
        return CorruptOutput(
            f"{self._store.path(self._key(number))} is damaged ({error}), so that what is left of "
            f"the budget of project '{self._project}' is not known; begin a new budget.store"
        )


def _share(plain: Mapping[str, Any]) -> JobShare:
    amounts = {name: Spent(**plain[name]) for name in ("spent", "reserved")}
    return JobShare(**{**plain, **amounts})
