"""The metadata of images that count: the tables that counted commits name, in the plan's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from cluster.counted_tables import counted_table, counted_tables
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import METADATA, read_parquet
from cluster.totals import counted, states


def metadata_of(store: Store, plan: PlanReader, columns: Sequence[str]) -> Iterator[pa.Table]:
    """These columns of ``METADATA`` for all images, some thousands at a time.

    Raises:
        CorruptOutput: a table that a counted commit names is missing or damaged.
    """
    schema = pa.schema([METADATA.field(name) for name in columns])
    refs = (commit.metadata for state in states(store, plan) for commit, _ in counted(state))
    keys = (ref.key for ref in refs if ref is not None)

    def parse(data: bytes) -> pa.Table:
        return read_parquet(data, schema.names).select(schema.names).cast(schema)

    return counted_tables(keys, lambda key: counted_table(store, key, parse))
