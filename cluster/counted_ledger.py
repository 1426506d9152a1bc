"""The ledger lines that count: of images, those in the objects that counted commits name; of
workers, those that close their lifetimes.

Knows nothing of what is asked of the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from cluster import layout
from cluster.corrections import standing
from cluster.counted_tables import counted_table, counted_tables
from cluster.job_log import JobRecord, generation, is_finished
from cluster.ledger import LEDGER, Attribution, ledger_table
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import all_lines, fold, states
from conf.errors import CorruptOutput

Used = tuple[int, int]
"""Nanoseconds and amount (1e-9 currency units) on the lines of a worker's images."""


def image_lines_of(store: Store, plan: PlanReader, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The lines of images, some thousands at a time.

    Args:
        columns: names of ``LEDGER``; the tables have these.

    Raises:
        CorruptOutput: an object that a counted commit names is missing or is no ledger.
    """
    refs = (counted.commit.ledger for state in states(store, plan) for counted in state.commits)
    keys = (ref.key for ref in refs if ref is not None)
    return counted_tables(keys, lambda key: _read(store, key, list(columns)))


def worker_lines_of(
    store: Store, job: JobRecord, plan: PlanReader, used: Mapping[str, Used] | None = None
) -> pa.Table:
    """The lines that no image has, with all columns: as written when the job finished, else as they
    stand now.

    Args:
        used: None of a job whose ledger is ``closed``; else what the lines of images that were read
            before come to, by worker: what is committed since then stands in ``wasted`` still.
    """
    if used is None:
        return standing(_read(store, layout.WORKER_LEDGER, LEDGER.names))
    totals = fold(store, plan)
    for worker, use in totals.workers.items():
        use.used_ns, use.used_amount = used.get(worker, (0, 0))
    lines = all_lines(totals, job.config.pricing.storage_months)
    return ledger_table(lines, Attribution.of(job.config.job))


def closed(store: Store) -> bool:
    """Whether the ledger of the workers is written for good."""
    return is_finished(store, generation(store)) and store.exists(layout.WORKER_LEDGER)


def _read(store: Store, key: str, columns: list[str]) -> pa.Table:
    """These columns of a ledger's object, as ``image_lines_of`` reads them."""

    def parse(data: bytes) -> pa.Table:
        table = read_parquet(data, columns)
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise CorruptOutput(
                f"{store.path(key)} has no column '{missing[0]}': it is no ledger of this version "
                "of ImageMill; ask with the version that made it (in job.json)"
            )
        return table.select(columns)

    return counted_table(store, key, parse)
