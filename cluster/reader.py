"""Reading input tables: the rows of one shard, or a few columns of a whole file.

Owns what a damaged, changed or vanished file means for the rows in it. Bounded memory: only the row
groups that hold the rows are touched, a batch at a time. Whether a row makes sense is decided in
``operators.request``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.cell_values import label_texts, plain_values
from cluster.input_files import input_failure
from cluster.metadata_columns import carried_names
from cluster.records import Shard
from cluster.row_tags import tags_of
from conf.errors import ImageMillError, InputChanged, InputError, RowRejected
from conf.schema import ColumnsConfig

OpenFile = Callable[[str], BinaryIO]
KNOWN = (
    "prompt",
    "negative_prompt",
    "seed",
    "width",
    "height",
    "steps",
    "guidance_scale",
    "sampler",
    "num_images",
)
"""The canonical columns that decide what an image is."""

_BATCH_ROWS = 1024
_COLUMN_BUFFER = 2**20
_ARROW_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What a Parquet file says of itself."""

    schema: pa.Schema
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSplit:
    """Which columns of a file have a meaning, and which are carried along.

    ``known``: canonical name -> column, for those that the file has. ``label``: the id's column.
    ``carried``: column -> its name in the metadata.
    """

    known: Mapping[str, str]
    label: str | None
    carried: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """The rows of one shard by their offset in it, 0 to ``rows`` - 1."""

    rows: int
    extras: pa.Table
    values: Mapping[str, Sequence[Any]]
    labels: Sequence[str | None] | None

    def known(self, offset: int) -> dict[str, Any]:
        """The row's known columns by canonical name; a column that is absent has no key."""
        return {name: column[offset] for name, column in self.values.items()}

    def label(self, offset: int) -> str | None:
        """The user's own id of the row, as text."""
        return None if self.labels is None else self.labels[offset]

    def tags(self, offsets: Sequence[int]) -> list[dict[str, str]]:
        """The tags of each of these rows."""
        if "tags" not in self.extras.column_names:
            return [{} for _ in offsets]
        return tags_of(self.extras["tags"].take(pa.array(offsets, pa.int64())))


def split_columns(names: Sequence[str], columns: ColumnsConfig) -> ColumnSplit:
    """Tell known columns from those that are carried through."""
    mapped = {item.name: getattr(columns, item.name) for item in dataclasses.fields(columns)}
    known = {name: mapped[name] for name in KNOWN if mapped[name] in names}
    label = columns.id if columns.id in names else None
    used = {*known.values(), label}
    extras = [name for name in names if name not in used and name != columns.tags]
    carried = carried_names(extras)
    if columns.tags in names and columns.tags not in used:
        if "tags" in carried:
            carried["tags"] = "input_tags"
        carried[columns.tags] = "tags"
    return ColumnSplit(known=known, label=label, carried=carried)


def read_footer(file: str, open_file: OpenFile) -> Footer:
    """The schema and row count of a Parquet file.

    Raises:
        InputError: it is gone, truncated or no Parquet file.
        StoreUnavailable: its store did not answer.
    """
    with _opened(file, open_file) as opened:
        return Footer(schema=opened.parquet.schema_arrow, rows=opened.parquet.metadata.num_rows)


def read_shard(shard: Shard, columns: ColumnsConfig, open_file: OpenFile) -> ShardRows:
    """Read just the shard's rows.

    Raises:
        RowRejected: ``unreadable_rows``, the file is damaged where these rows are.
        InputChanged: the file is gone or no longer holds these rows.
        StoreUnavailable: its store did not answer.
    """
    batches: list[pa.RecordBatch] = []
    try:
        with _opened(shard.file, open_file) as opened:
            parquet = opened.parquet
            split = split_columns(parquet.schema_arrow.names, columns)
            _check_still_there(shard, parquet, columns)
            batches.extend(_batches(opened, shard.first_row, shard.rows, None))
            schema = batches[0].schema if batches else parquet.schema_arrow
    except InputChanged:
        raise
    except InputError as error:
        raise InputChanged(f"the input changed after it was planned: {error}") from error
    table = pa.Table.from_batches(batches, schema=schema)
    table = table.replace_schema_metadata(None)  # it may describe the columns as a whole (pandas)
    order = [name for name in table.schema.names if name in split.carried]
    extras = table.select(order).rename_columns([split.carried[name] for name in order])
    if any(pa.types.is_dictionary(field.type) for field in extras.schema):
        extras = extras.unify_dictionaries()
    return ShardRows(
        rows=table.num_rows,
        extras=extras,
        values={name: plain_values(table[source], name) for name, source in split.known.items()},
        labels=None if split.label is None else label_texts(table[split.label]),
    )


def scan_columns(
    file: str,
    names: Sequence[str],
    columns: ColumnsConfig,
    open_file: OpenFile,
    *,
    first_row: int = 0,
    rows: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Stream the canonical columns ``names`` of a row range as Arrow arrays, reading no others.

    A column that the file does not have is left out; without any of them nothing is yielded.

    Raises:
        RowRejected, InputError, StoreUnavailable: as ``read_shard``, at the batch concerned.
    """
    with _opened(file, open_file) as opened:
        parquet = opened.parquet
        count = parquet.metadata.num_rows - first_row if rows is None else rows
        present = parquet.schema_arrow.names
        mapped = {name: getattr(columns, name) for name in names}
        wanted = {name: source for name, source in mapped.items() if source in present}
        sources = sorted(set(wanted.values()))
        if not sources:
            return
        for batch in _batches(opened, first_row, count, sources):
            yield {name: batch.column(source) for name, source in wanted.items()}


class _Watched:
    """A binary file that remembers a failure of its own.

    Arrow raises OSError for damaged data as well; this tells the two apart.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.failure: OSError | None = None
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        try:
            return self._raw.read(size)
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing to write."""

    def close(self) -> None:
        self.closed = True
        self._raw.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    file: str
    parquet: Any
    watched: _Watched


@contextmanager
def _opened(file: str, open_file: OpenFile) -> Iterator[_Opened]:
    try:
        watched = _Watched(open_file(file))
    except OSError as error:
        raise input_failure(error, file) from error
    try:
        try:
            parquet = pq.ParquetFile(
                watched,
                buffer_size=_COLUMN_BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        except _ARROW_ERRORS as error:
            raise _failure(error, watched, file) from error
        yield _Opened(file=file, parquet=parquet, watched=watched)
    finally:
        watched.close()


def _failure(error: Exception, watched: _Watched, file: str) -> ImageMillError:
    if watched.failure is not None:
        return input_failure(watched.failure, file)
    return InputError(f"{file} is no readable Parquet file: {error}")


def _batches(
    opened: _Opened, first: int, rows: int, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """The rows [first, first + rows) as they are cut by batches."""
    parquet, watched, file = opened.parquet, opened.watched, opened.file
    groups, skip = _groups_of(parquet.metadata, first, rows)
    if not groups:
        return
    read = parquet.iter_batches(
        batch_size=_BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False
    )
    left = rows
    while left > 0:
        try:
            batch = next(read)
        except StopIteration:
            raise InputChanged(f"{file} ends {left} rows early; it was planned with more") from None
        except _ARROW_ERRORS as error:
            raise _unreadable(error, watched, file, first, rows) from error
        part = batch.slice(min(skip, batch.num_rows), left)
        skip = max(0, skip - batch.num_rows)
        left -= part.num_rows
        if part.num_rows:
            yield part


def _unreadable(
    error: Exception, watched: _Watched, file: str, first: int, rows: int
) -> ImageMillError:
    if watched.failure is not None:
        return input_failure(watched.failure, file)
    message = f"{file} is damaged at rows {first} to {first + rows - 1}: {error}"
    return RowRejected(stage="read", reason="unreadable_rows", message=message)


def _groups_of(metadata: Any, first: int, rows: int) -> tuple[list[int], int]:
    """The row groups that hold the rows, and how many rows to skip in the first of them."""
    groups: list[int] = []
    start = skip = 0
    for number in range(metadata.num_row_groups):
        end = start + metadata.row_group(number).num_rows
        if start < first + rows and first < end:
            if not groups:
                skip = first - start
            groups.append(number)
        start = end
    return groups, skip


def _check_still_there(shard: Shard, parquet: Any, columns: ColumnsConfig) -> None:
    found = parquet.metadata.num_rows
    needed = shard.first_row + shard.rows
    if found < needed:
        raise InputChanged(
            f"{shard.file} has {found} rows; expected at least {needed} as it was planned"
        )
    if columns.prompt not in parquet.schema_arrow.names:
        raise InputChanged(f"{shard.file} has no column '{columns.prompt}' any more")
