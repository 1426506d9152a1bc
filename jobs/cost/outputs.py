"""Which outputs a question is about: those that were named, and all below folders that were."""

from __future__ import annotations

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
from jobs.run import looking_at

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

    def plan(self) -> PlanReader:
        """The plan of its shards."""
        return PlanReader(self.store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The URLs of outputs that were asked, and of those whose costs are not final, or not real."""

    outputs: tuple[str, ...]
    unfinished: tuple[str, ...]
    simulated: tuple[str, ...]

    @classmethod
    def of(cls, outputs: Sequence[Output]) -> Self:
        """As they stand now."""
        return cls(
            outputs=tuple(output.url for output in outputs),
            unfinished=tuple(output.url for output in outputs if not output.finished),
            simulated=tuple(o.url for o in outputs if is_simulated(o.job.config)),
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
        return said

    def _of(self, some: Sequence[str]) -> str:
        return f"{len(some):,} of {plural(len(self.outputs), 'output')}"


def find_outputs(named: Sequence[str], overrides: Sequence[str] = ()) -> list[Output]:
    """The outputs at or below each of ``named``, each once, in their order.

    Args:
        overrides: ``storage.*`` keys: how the stores are reached.

    Raises:
        OutputMissing: nothing is there, or no job is.
        StoreRefused: the store does not answer.
    """
    found: dict[str, Output] = {}
    for name in named:
        with looking_at(name, overrides) as (_, store):
            below = list(_outputs_in(store, DEEPEST))
            if not below:
                raise _no_output(store)
        for output in below:
            found.setdefault(output.store.url.rstrip("/"), output)
    return list(found.values())


def _outputs_in(store: Store, depth: int) -> Iterator[Output]:
    job = find_job(store)
    if job is not None:
        yield Output(job=as_last_run(store, job), store=store)
    elif depth:
        for folder in store.folders(""):
            if not folder.startswith("."):
                yield from _outputs_in(store.below(folder), depth - 1)


def _no_output(store: Store) -> OutputMissing:
    where = without_secrets(store.url)
    entries, folders = store.inside("")
    names = [f"{name}/" for name in folders] + [entry.key for entry in entries]
    if not names:
        return OutputMissing(
            f"nothing is at {where}; expected the output.path of a job, or a folder above some"
        )
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return OutputMissing(
        f"{where} holds {', '.join(names[:_SHOWN])}{more}, but no job: no job.json is there or in "
        f"the {DEEPEST} levels of folders below; expected the output.path of a job, or a folder "
        "above some"
    )
