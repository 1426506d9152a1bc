"""Which outputs a question is about: those that were named, and all below folders that were."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from cluster import layout
from cluster.job_log import JobRecord, as_last_run, find_job, generation, is_finished
from cluster.plan_file import PlanReader
from cluster.store import Store
from conf.errors import OutputMissing
from conf.secrets import without_secrets
from jobs.figures import is_simulated, plural
from jobs.open_job import looking_at

log = logging.getLogger("imagemill")
DEEPEST = 6
"""How many folders below a named one outputs are looked for."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A job, with the prices of its last run, and where it lies."""

    job: JobRecord
    store: Store

    @property
    def url(self) -> str:
        """Where it lies, without secrets."""
        return without_secrets(self.store.url)

    @property
    def finished(self) -> bool:
        """Whether its lines are all written: what they come to now changes by corrections only."""
        return is_finished(self.store, generation(self.store)) and self.store.exists(
            layout.WORKER_LEDGER
        )

    @property
    def place(self) -> str:
        """The same for each way that leads to it."""
        return _place(self.store)

    def plan(self) -> PlanReader:
        """The plan of its shards."""
        return PlanReader(self.store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The URLs of outputs that were asked, and of those whose costs are not final, or not real, or
    which hold one and the same job as others (``copies``)."""

    outputs: tuple[str, ...]
    unfinished: tuple[str, ...]
    simulated: tuple[str, ...]
    copies: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, outputs: Sequence[Output]) -> Self:
        """As they stand now."""
        return cls(
            outputs=tuple(output.url for output in outputs),
            unfinished=tuple(output.url for output in outputs if not output.finished),
            simulated=tuple(o.url for o in outputs if is_simulated(o.job.config)),
            copies=_copies(outputs),
        )

    def lines(self) -> list[str]:
        """What must be known beside any sum of theirs."""
        said = []
        if self.simulated:
            said.append(
                f"SIMULATED  {self._of(self.simulated)}: no model ran, and times come from a "
                "calibrated table"
            )
        if self.unfinished:
            said.append(
                f"unfinished {self._of(self.unfinished)}: these are the costs so far; what is not "
                "committed yet is in wasted"
            )
        said += [
            f"copies     {', '.join(urls[:_SHOWN])}{_more(urls)} are one job (started at one time "
            "with one configuration); each was counted: leave out the copies"
            for urls in self.copies
        ]
        return said

    def _of(self, some: Sequence[str]) -> str:
        return f"{len(some):,} of {plural(len(self.outputs), 'output')}"


def find_outputs(named: Sequence[str], overrides: Sequence[str] = ()) -> list[Output]:
    """The outputs at or below each of ``named``, each once, in their order. Links to folders are
    not followed, but where they are named; those that lead elsewhere are logged.

    Args:
        overrides: ``storage.*`` keys: how the stores are reached.

    Raises:
        OutputMissing: nothing is there, or no job is.
        StoreRefused: the store does not answer.
    """
    found: dict[str, Output] = {}
    links: list[Store] = []
    roots: list[str] = []
    for name in named:
        with looking_at(name, overrides) as (_, store):
            roots.append(_place(store))
            below = list(_outputs_in(store, DEEPEST, links))
            if not below:
                raise _no_output(store)
        for output in below:
            found.setdefault(output.place, output)
    _tell_links(links, roots)
    return list(found.values())


def _copies(outputs: Sequence[Output]) -> tuple[tuple[str, ...], ...]:
    """The URLs of each job that lies at several places."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for output in outputs:
        places[output.job.digest, output.job.created_at].append(output.url)
    return tuple(tuple(urls) for urls in places.values() if len(urls) > 1)


def _place(store: Store) -> str:
    root = store.local_root
    return store.url.rstrip("/") if root is None else os.path.realpath(root)


def _outputs_in(store: Store, depth: int, links: list[Store]) -> Iterator[Output]:
    job = find_job(store)
    if job is not None:
        yield Output(job=as_last_run(store, job), store=store)
    elif depth:
        for folder in store.folders(""):
            if folder.startswith("."):
                continue
            below = store.below(folder)
            if below.local_root is not None and below.local_root.is_symlink():
                links.append(below)
            else:
                yield from _outputs_in(below, depth - 1, links)


def _tell_links(links: Sequence[Store], roots: Sequence[str]) -> None:
    """A link may lead back, or out of what was asked, so none is followed. What one leads to below
    the named folders is found without it."""
    for link in links:
        place = _place(link)
        if not any(f"{place}/".startswith(f"{root.rstrip('/')}/") for root in roots):
            log.warning(
                "%s is a link to %s and was not followed; name it too if it is to be counted",
                link.url,
                place,
                extra={"event": "link_not_followed"},
            )


def _no_output(store: Store) -> OutputMissing:
    where = without_secrets(store.url)
    if store.local_root is not None and store.local_root.is_file():
        return OutputMissing(
            f"{where} is a file; expected a folder: the output.path of a job, or one above some"
        )
    entries, folders = store.inside("")
    names = [f"{name}/" for name in folders] + [entry.key for entry in entries]
    if not names:
        return OutputMissing(
            f"nothing is at {where}; expected the output.path of a job, or a folder above some"
        )
    more = _more(names)
    return OutputMissing(
        f"{where} holds {', '.join(names[:_SHOWN])}{more}, but no job: no job.json is there or in "
        f"the {DEEPEST} levels of folders below (links are not followed); expected the output.path "
        "of a job, or a folder above some"
    )


def _more(texts: Sequence[str]) -> str:
    return f" and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
