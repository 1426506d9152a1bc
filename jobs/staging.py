"""CSV and JSON Lines become Parquet before anything is planned: every row gets a fixed place.

Converts block by block into parts of bounded size. Loses no row: what cannot be parsed is an error
that names the file. Columns of a CSV stay text, exactly as written ("007" is not 7); the reader
takes text for a number where a known column wants one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from cluster import layout
from cluster.plan_file import STAGED_MARK
from cluster.reader import OpenFile
from cluster.store import Store
from conf.errors import InputError
from conf.schema import ColumnsConfig
from jobs.unreadable import first_line, not_csv, not_json, refuse_other_separators, refuse_utf16

PART_BYTES = 32 * 2**20
_BLOCK_BYTES = 8 * 2**20
_GROUP_ROWS = 16_384
_TEXT_COLUMNS = ("prompt", "negative_prompt", "sampler")

PutPart = Callable[[str, bytes], str]
"""Takes a part's name and content and returns the name to open it by."""


def into_store(store: Store) -> PutPart:
    """Parts go to ``plan/staged/`` of the output."""

    def put(name: str, data: bytes) -> str:
        key = f"{layout.PLAN_STAGED}/{name}"
        store.put_if_absent(key, data)
        return STAGED_MARK + key

    return put


def into_folder(folder: Path) -> PutPart:
    """Parts go to a local folder, for a plan that is not kept."""

    def put(name: str, data: bytes) -> str:
        path = folder / name
        path.write_bytes(data)
        return str(path)

    return put


def stage(
    source: str, kind: str, columns: ColumnsConfig, open_file: OpenFile, *, put: PutPart, stem: str
) -> Iterator[str]:
    """Convert ``source`` (``csv`` or ``jsonl``) and yield the name of each part.

    Raises:
        InputError: it cannot be parsed, with what pyarrow said.
    """
    tables = (
        _csv_tables(source, columns, open_file)
        if kind == "csv"
        else _json_tables(source, columns, open_file)
    )
    parts = _Parts(put, stem)
    try:
        for table in tables:
            yield from parts.add(table)
        yield from parts.finish()
    except pa.ArrowException as error:
        raise InputError(f"{source} cannot be kept as Parquet: {first_line(error)}") from error


class _Parts:
    """Cuts a stream of tables into Parquet parts; the name of a part tells its content."""

    def __init__(self, put: PutPart, stem: str) -> None:
        self._put = put
        self._stem = stem
        self._count = 0
        self._file: Any = None
        self._writer: Any = None

    def add(self, table: pa.Table) -> Iterator[str]:
        if self._writer is None:
            self._file = io.BytesIO()
            self._writer = pq.ParquetWriter(self._file, table.schema, write_page_checksum=True)
        self._writer.write_table(table, row_group_size=_GROUP_ROWS)
        if self._file.tell() >= PART_BYTES:
            yield self._close()

    def finish(self) -> Iterator[str]:
        if self._writer is not None:
            yield self._close()

    def _close(self) -> str:
        self._writer.close()
        data = self._file.getvalue()
        name = f"{self._stem}-{self._count:05d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
        part = self._put(name, data)
        self._count += 1
        self._file = self._writer = None
        return part


def _csv_tables(source: str, columns: ColumnsConfig, open_file: OpenFile) -> Iterator[pa.Table]:
    with open_file(source) as raw:
        refuse_utf16(source, raw.read(2))
        raw.seek(0)
        try:
            reader = _csv_reader(raw, skip_empty=True)
            refuse_other_separators(source, reader.schema.names, columns.prompt)
            if len(reader.schema) == 1:  # there an empty line is a row without a prompt
                raw.seek(0)
                reader = _csv_reader(raw, skip_empty=False)
            yield reader.schema.empty_table()
            for batch in reader:
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise not_csv(source, error) from error


def _csv_reader(raw: BinaryIO, *, skip_empty: bool) -> Any:
    return pyarrow.csv.open_csv(
        raw,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            newlines_in_values=True, ignore_empty_lines=skip_empty
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            default_column_type=pa.string(),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _json_tables(source: str, columns: ColumnsConfig, open_file: OpenFile) -> Iterator[pa.Table]:
    """Two passes: the columns and types of all blocks first, then the rows in that one schema."""
    text = {getattr(columns, name) for name in _TEXT_COLUMNS}
    schema = pa.schema([])
    for line, block in _json_blocks(source, open_file):
        found = _parse_json(source, line, block, None).schema
        try:
            schema = pa.unify_schemas([schema, _settled(found, text)], promote_options="permissive")
        except pa.ArrowException as error:
            raise not_json(source, line, block, error) from error
    if not schema.names:
        return
    yield schema.empty_table()
    for line, block in _json_blocks(source, open_file):
        yield _parse_json(source, line, block, schema)


def _json_blocks(source: str, open_file: OpenFile) -> Iterator[tuple[int, bytes]]:
    """Whole lines of about a block's size, each with the number of its first line (from 1)."""
    line = 1
    rest = b""
    with open_file(source) as raw:
        while data := raw.read(_BLOCK_BYTES):
            head, newline, tail = data.rpartition(b"\n")
            if not newline:
                rest += data
                continue
            block = rest + head + newline
            yield line, block
            line += block.count(b"\n")
            rest = tail
    if rest:
        yield line, rest


def _parse_json(source: str, line: int, block: bytes, schema: pa.Schema | None) -> pa.Table:
    if not block.strip():
        return (schema or pa.schema([])).empty_table()
    if line == 1 and block.lstrip()[:1] == b"[":
        raise InputError(
            f"{source} is one JSON array; expected one JSON object a line (JSON Lines)"
        )
    try:
        return pyarrow.json.read_json(
            io.BytesIO(block),
            read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
        )
    except pa.ArrowException as error:
        raise not_json(source, line, block, error) from error


def _settled(schema: pa.Schema, text: set[str]) -> pa.Schema:
    """JSON has no times: what was taken for one is text, and so are the known text columns."""
    return pa.schema(
        [
            field.with_type(
                pa.string()
                if field.name in text and _is_plain(field.type)
                else _without_times(field.type)
            )
            for field in schema
        ]
    )


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or pa.types.is_temporal(kind) or pa.types.is_string(kind))


def _without_times(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_times(field.type)) for field in kind])
    return kind
