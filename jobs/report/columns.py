"""Which columns the metadata of a whole output has: those of all its input files together."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.carried_values import without_map_types
from cluster.plan_file import PlanReader
from cluster.shard_log import ShardState
from cluster.store import Store
from cluster.tables import METADATA
from cluster.totals import states


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of all metadata tables, maps as lists of pairs. ``mixed``: tables differ in them.

    A carried column whose types in two files cannot be reconciled is left out.
    """

    schema: pa.Schema
    mixed: bool


def metadata_columns(store: Store, plan: PlanReader) -> Columns:
    """Read the columns of one metadata table of each input file."""
    schema = METADATA.remove_metadata()
    known = set(schema.names)
    refused: set[str] = set()
    first: pa.Schema | None = None
    file, mixed = "", False
    for state in states(store, plan):
        shard = plan.shard(state.shard_id)
        found = None if shard.file == file else _schema_of(store, state)
        if found is None:
            continue
        file, first = shard.file, first or found
        mixed = mixed or found != first
        for column in found:
            if column.name not in known | refused:
                try:
                    schema = _with(schema, column)
                except (pa.ArrowInvalid, pa.ArrowTypeError):
                    refused.add(column.name)
    kept = pa.schema([column for column in schema if column.name not in refused])
    return Columns(schema=kept, mixed=mixed)


def _schema_of(store: Store, state: ShardState) -> pa.Schema | None:
    for counted in state.commits:
        metadata = counted.commit.metadata
        data = store.get(metadata.key) if metadata and counted.commit.images else None
        if data is not None:
            return pq.read_schema(pa.BufferReader(data))
    return None


def _with(schema: pa.Schema, column: pa.Field) -> pa.Schema:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    one = pa.schema([pa.field(column.name, without_map_types(kind))])
    return pa.unify_schemas([schema, one], promote_options="permissive")
