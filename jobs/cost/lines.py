"""The ledger lines of many outputs as one table of a query engine, read once and streamed.

Memory: what the engine is allowed, a few objects that are read ahead, and the workers' lines of one
output. What does not fit into the engine's share is spilled to a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import layout
from cluster.counted_ledger import Used, closed, image_lines_of, worker_lines_of
from cluster.ledger import LEDGER
from cluster.ledger_days import PART, in_one_part, on_days
from conf.errors import ImageMillError
from jobs.cost.outputs import Output

_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "1GiB",
    "preserve_insertion_order": False,
    "autoinstall_known_extensions": False,  # which would ask the network
    "autoload_known_extensions": False,
}
_BATCH_ROWS = 65_536
_USED = ("worker", "gpu_ns", "amount_nano")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a query reads of the lines: columns of ``LEDGER``, and tags as (column, tag).

    ``by_day``: a worker's line that lasts over midnight comes as one line for each of its days, and
    all have ``PART``.
    """

    columns: tuple[str, ...]
    tags: tuple[tuple[str, str], ...] = ()
    by_day: bool = False


@contextmanager
def ledger(outputs: Sequence[Output], wanted: Wanted) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which ``lines`` holds the wanted columns and ``output``. It can be read once.

    Raises:
        CorruptOutput, StoreUnavailable: a line that counts cannot be read; raised at the end of the
            block, whatever the engine made of it.
    """
    source = _Source(outputs, wanted)
    reader = pa.RecordBatchReader.from_batches(source.schema, source.batches())
    with (
        tempfile.TemporaryDirectory(prefix="imagemill-") as spill,
        duckdb.connect(config={**_OPTIONS, "temp_directory": spill}) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        db.register("lines", reader)
        try:
            yield db
        except (duckdb.Error, pa.ArrowException, OSError):
            if source.failure is not None:
                raise source.failure from None
            raise


class _Source:
    """Batches of the lines, for an engine that forgets our errors: ``failure`` keeps them."""

    def __init__(self, outputs: Sequence[Output], wanted: Wanted) -> None:
        self._outputs = outputs
        self._wanted = wanted
        self.failure: ImageMillError | None = None
        plain = [LEDGER.field(name) for name in self._plain_columns]
        tags = [pa.field(column, pa.string()) for column, _ in wanted.tags]
        part = [PART] if wanted.by_day else []
        self.schema = pa.schema([*plain, *part, *tags, pa.field("output", pa.string())])

    @property
    def _plain_columns(self) -> list[str]:
        return [name for name in LEDGER.names if name in self._wanted.columns]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All lines, an output after the other."""
        try:
            for output in self._outputs:
                for table in self._tables(output):
                    yield from self._shaped(table, output).to_batches(max_chunksize=_BATCH_ROWS)
        except ImageMillError as error:
            self.failure = error
            raise

    def _tables(self, output: Output) -> Iterator[pa.Table]:
        if not output.store.exists(layout.PLAN_SHARDS):
            return
        plan = output.plan()
        columns = list(dict.fromkeys([*self._plain_columns, *_USED]))
        if self._wanted.tags and "tags" not in columns:
            columns.append("tags")
        used: dict[str, Used] | None = None if closed(output.store) else {}
        for table in image_lines_of(output.store, plan, columns):
            if used is not None:
                _add_used(used, table)
            yield in_one_part(table) if self._wanted.by_day else table
        # last: while a job runs, what they tell must be no older than the lines of images
        workers = worker_lines_of(output.store, output.job, plan, used)
        yield on_days(workers) if self._wanted.by_day else workers

    def _shaped(self, table: pa.Table, output: Output) -> pa.Table:
        table = table.unify_dictionaries().combine_chunks()
        columns = [table[name] for name in self._plain_columns]
        columns += [table[PART.name]] if self._wanted.by_day else []
        columns += [tag_values(table["tags"], tag) for _, tag in self._wanted.tags]
        columns.append(pa.repeat(pa.scalar(output.url), table.num_rows))
        return pa.Table.from_arrays(columns, schema=self.schema)


def _add_used(used: dict[str, Used], table: pa.Table) -> None:
    """Add what a worker's images used on these lines."""
    plain = table.select(list(_USED)).set_column(0, "worker", table["worker"].cast(pa.string()))
    sums = plain.group_by("worker").aggregate([("gpu_ns", "sum"), ("amount_nano", "sum")])
    for row in sums.to_pylist():
        ns, amount = used.get(row["worker"], (0, 0))
        used[row["worker"]] = (ns + row["gpu_ns_sum"], amount + (row["amount_nano_sum"] or 0))


def tag_values(tags: pa.ChunkedArray, tag: str) -> pa.ChunkedArray:
    """The tag's value in each map of the column, null where it has none."""
    return pa.chunked_array([_values(chunk, tag) for chunk in tags.chunks], pa.string())


def _values(maps: pa.MapArray, tag: str) -> pa.Array:
    """All maps at once: a look into each would take most of a question's time."""
    offsets = maps.offsets.to_numpy()
    first, pairs = int(offsets[0]), int(offsets[-1] - offsets[0])
    mine = pc.equal(maps.keys.slice(first, pairs), tag).to_numpy(zero_copy_only=False)
    places = np.flatnonzero(mine)
    found = np.full(len(maps), -1, np.int64)
    found[np.repeat(np.arange(len(maps)), np.diff(offsets))[places]] = places + first
    return maps.items.take(pa.array(found, mask=found < 0))
