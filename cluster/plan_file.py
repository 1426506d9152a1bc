"""The plan as stored: which input files there are and which rows each shard holds.

Written once (``plan/inputs.parquet``, ``plan/shards.parquet``) and read a row group at a time, so
that neither side's memory grows with the job. Knows nothing of how inputs are found or read.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import layout
from cluster.records import SCHEMA, Shard
from cluster.store import Store
from conf.errors import CorruptOutput, OutputMissing

STAGED_MARK = "output:"
"""Begins ``InputFile.file`` where the rows were converted into the output store; a key follows."""

GROUP_ROWS = 65_536
_CACHED_GROUPS = 4
_SPOOLED_BYTES = 16 * 2**20

_METADATA = {b"imagemill.schema": str(SCHEMA).encode()}
_INPUT_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("problem", pa.string()),
    ],
    metadata=_METADATA,
)
_SHARD_SCHEMA = pa.schema(
    [
        pa.field("shard_id", pa.int64(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("first_row_id", pa.int64(), nullable=False),
    ],
    metadata=_METADATA,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One Parquet file that rows are read from.

    ``file`` is an absolute path or URL, or ``output:<key>`` for rows staged from CSV or JSON Lines;
    ``source`` is the file that the user gave, which may have been staged as several. Its row
    ``source_row`` is this file's first. ``bytes`` and ``fingerprint`` are the source's. A file with
    a ``problem`` has no rows.
    """

    index: int
    file: str
    source: str
    source_row: int = 0
    bytes: int
    fingerprint: str
    rows: int
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan holds, in numbers."""

    inputs: int
    problems: int
    shards: int
    rows: int


def write_plan(store: Store, inputs: Iterable[InputFile], shards: Iterable[Shard]) -> Plan:
    """Write the plan; writing the same plan again is no error.

    Raises:
        CommitConflict: the output holds another plan.
    """
    files = list(inputs)
    shard_count = _put_records(store, layout.PLAN_SHARDS, shards, _SHARD_SCHEMA)
    _put_records(store, layout.PLAN_INPUTS, files, _INPUT_SCHEMA)
    return Plan(
        inputs=len(files),
        problems=sum(item.problem is not None for item in files),
        shards=shard_count,
        rows=sum(item.rows for item in files),
    )


def _put_records(store: Store, key: str, records: Iterable[Any], schema: pa.Schema) -> int:
    count = 0
    remaining = iter(records)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := list(islice(remaining, GROUP_ROWS)):
                columns = [[getattr(item, name) for item in group] for name in schema.names]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=GROUP_ROWS)
                count += len(group)
        file.seek(0)
        store.put_if_absent(key, file.read())
    return count


class PlanReader:
    """Reads a stored plan in place. Safe to use from several threads.

    Invariant: at most a few row groups are in memory, whatever the number of shards.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        with self._opened(layout.PLAN_SHARDS) as file:
            self._group_count: int = file.metadata.num_row_groups
            self._shards: int = file.metadata.num_rows
        with self._opened(layout.PLAN_INPUTS) as file:
            self._rows: int = (
                pc.sum(file.read(columns=["rows"], use_threads=False)["rows"]).as_py() or 0
            )

    @property
    def shards(self) -> int:
        """The number of shards; their ids are 0 to one below it."""
        return self._shards

    @property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return self._rows

    def inputs(self) -> Iterator[InputFile]:
        """The input files in order, also those with a problem."""
        with self._opened(layout.PLAN_INPUTS) as file:
            for number in range(file.metadata.num_row_groups):
                for plain in file.read_row_group(number, use_threads=False).to_pylist():
                    yield InputFile(**plain)

    def shard(self, shard_id: int) -> Shard:
        """One shard; reads only the row group that holds it.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= shard_id < self._shards:
            raise IndexError(f"there is no shard {shard_id}; the plan has {self._shards}")
        number, place = divmod(shard_id, GROUP_ROWS)
        return _shards_in(self._cached_group(number).slice(place, 1))[0]

    def rows_of(self, shards: Sequence[int]) -> int:
        """The number of rows in these shards, ids in ascending order; a row group at a time."""
        rows = 0
        for number, ids in groupby(shards, lambda shard_id: shard_id // GROUP_ROWS):
            places = pa.array((shard_id % GROUP_ROWS for shard_id in ids), pa.int64())
            rows += pc.sum(self._cached_group(number)["rows"].take(places)).as_py() or 0
        return rows

    def iter_shards(self) -> Iterator[Shard]:
        """All shards by id, a row group at a time."""
        for number in range(self._group_count):
            group = self._read_group(number)
            for batch in group.to_batches(max_chunksize=4096):
                yield from _shards_in(pa.Table.from_batches([batch]))

    def _cached_group(self, number: int) -> pa.Table:
        with self._lock:
            if number not in self._groups:
                self._groups[number] = self._read_group(number)
                if len(self._groups) > _CACHED_GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(number)
            return self._groups[number]

    def _read_group(self, number: int) -> pa.Table:
        with self._opened(layout.PLAN_SHARDS) as file:
            return file.read_row_group(number, use_threads=False)

    @contextmanager
    def _opened(self, key: str) -> Iterator[pq.ParquetFile]:
        if not self._store.exists(key):
            raise OutputMissing(f"{self._store.url} holds no plan: {key} is missing")
        with self._store.open(key) as raw:
            try:
                with pq.ParquetFile(raw) as file:
                    found = (file.schema_arrow.metadata or {}).get(b"imagemill.schema")
                    if found != str(SCHEMA).encode():
                        raise CorruptOutput(
                            f"{self._store.path(key)} has plan schema {found!r}; expected {SCHEMA}"
                        )
                    yield file
            except pa.ArrowInvalid as error:
                raise CorruptOutput(f"{self._store.path(key)} is damaged: {error}") from error


def _shards_in(table: pa.Table) -> list[Shard]:
    names = [item.name for item in dataclasses.fields(Shard)]
    return [Shard(**{name: plain[name] for name in names}) for plain in table.to_pylist()]
