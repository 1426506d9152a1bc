"""The list of images that `datasets` looks for in a folder of images: ``metadata.parquet``.

Derived from the metadata tables for the ``files`` format, a commit at a time; rebuilt at will.
"""

from __future__ import annotations

import tempfile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.carried_values import without_maps
from cluster.image_shares import SHARES, ImageShares
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import counted, states
from conf.errors import CorruptOutput

IMAGE_LIST = "metadata.parquet"
LARGEST_LIST = 256 * 2**20
"""A larger list is not written, since it is held in memory once."""
_GROUP_ROWS = 16_384


def write_image_list(
    store: Store, plan: PlanReader, schema: pa.Schema, shares: ImageShares
) -> bool:
    """Write the list of what counts, each image with its ``shares``; False where there is no image
    or it would be too large.

    Raises:
        CorruptOutput: a table that a counted commit names does not exist.
        StoreFull, StoreUnavailable: it could not be written.
    """
    names = listed_names(schema)
    kept = pa.schema([column for column in schema if column.name in names])
    own = (column.with_name(names[column.name]) for column in kept)
    target = pa.schema([("file_name", pa.string()), *own, *SHARES])
    with tempfile.TemporaryFile() as file:
        rows = 0
        with pq.ParquetWriter(file, target, compression="zstd") as writer:
            for table in _grouped(store, plan, kept):
                writer.write_table(_listed(table, shares, target))
                rows += table.num_rows
                if file.tell() > LARGEST_LIST:
                    break
        fits = file.tell() <= LARGEST_LIST
        if rows and fits:
            file.seek(0)
            store.put(IMAGE_LIST, file.read())
        elif store.exists(IMAGE_LIST):
            store.delete(IMAGE_LIST)
    return bool(rows and fits)


def listed_names(schema: pa.Schema) -> dict[str, str]:
    """Column -> its name in the list.

    ``datasets`` takes every column that ends in ``file_name`` for a picture: there such a column of
    the user's ends in ``filename``. One that has such a name deeper inside is left out.
    """
    taken = {column.name for column in schema}
    names: dict[str, str] = {}
    for column in schema:
        if _inside(column.type):
            continue
        name = column.name
        if _is_picture(name):
            name = "filename".join(name.rsplit("file_name", 1))
            while name in taken:
                name = f"input_{name}"
            taken.add(name)
        names[column.name] = name
    return names


def _is_picture(name: str) -> bool:
    return name.endswith(("file_name", "file_names"))


def _inside(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_picture(part.name) or _inside(part.type) for part in kind)
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(nested or pa.types.is_fixed_size_list(kind)) and _inside(kind.value_type)


def _listed(table: pa.Table, shares: ImageShares, target: pa.Schema) -> pa.Table:
    columns = [table["object"], *table.columns, *shares.columns(table)]
    return pa.Table.from_arrays(columns, schema=target)


def _grouped(store: Store, plan: PlanReader, schema: pa.Schema) -> Any:
    """The metadata as tables of a fair size in one schema."""
    waiting: list[pa.Table] = []
    for state in states(store, plan):
        for commit, _ in counted(state):
            if commit.metadata is None:
                continue
            data = store.get(commit.metadata.key)
            if data is None:
                key = commit.metadata.key
                raise CorruptOutput(f"{key} is named by a counted commit but does not exist")
            waiting.append(_conformed(without_maps(read_parquet(data)), schema))
            if sum(table.num_rows for table in waiting) >= _GROUP_ROWS:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with just these columns; one that it lacks is null."""
    columns = []
    for column in schema:
        if column.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, column.type))
        elif table[column.name].type == column.type:
            columns.append(table[column.name])
        else:
            columns.append(pc.cast(table[column.name], column.type, safe=False))
    return pa.Table.from_arrays(columns, schema=schema)
