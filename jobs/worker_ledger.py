"""``ledger/workers.parquet``: all lines but those of images, which are only ever added to."""

from __future__ import annotations

import logging

import pyarrow as pa

from cluster import layout
from cluster.corrections import with_corrections
from cluster.ledger import LEDGER
from cluster.store import Store
from cluster.tables import read_parquet, to_parquet

log = logging.getLogger("imagemill")


def add_lines(store: Store, lines: pa.Table) -> None:
    """Write what is new in ``lines``; what was written before stays as it is."""
    before = _before(store)
    after = with_corrections(before, lines)
    if after.num_rows > before.num_rows or not before.num_rows:
        store.put(layout.WORKER_LEDGER, to_parquet(after.unify_dictionaries()))


def _before(store: Store) -> pa.Table:
    """The lines that are there; none where there is no file, or none that can be read."""
    data = store.get(layout.WORKER_LEDGER)
    if data is None:
        return LEDGER.empty_table()
    try:
        return read_parquet(data).select(LEDGER.names).cast(LEDGER)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        log.warning(
            "%s cannot be read and is written anew: %s",
            store.path(layout.WORKER_LEDGER),
            error,
            extra={"event": "ledger_anew"},
        )
        return LEDGER.empty_table()
