"""Going through the whole input once, a few columns of it, without stopping at damaged rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cluster.plan_file import InputFile
from cluster.reader import OpenFile, scan_columns
from conf.errors import RowRejected
from conf.schema import ColumnsConfig

_RETRIED_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """Consecutive rows: their canonical columns as Arrow arrays, or why they are unreadable."""

    first_row_id: int
    rows: int
    columns: Mapping[str, Any]
    problem: RowRejected | None = None


def scan_input(
    inputs: Iterable[InputFile],
    names: Sequence[str],
    columns: ColumnsConfig,
    open_file: OpenFile,
    shard_rows: int = _RETRIED_ROWS,
) -> Iterator[Scanned]:
    """Stream the canonical columns ``names`` of all files; damage is cut by ``shard_rows``.

    A file that has none of the columns is passed over.

    Raises:
        InputChanged, StoreUnavailable: a file cannot be read any more.
    """
    file_start = 0
    for item in inputs:
        if item.rows:
            scan = _FileScan(item=item, names=names, columns=columns, open_file=open_file)
            for piece in scan.pieces(shard_rows):
                yield dataclasses.replace(piece, first_row_id=file_start + piece.first_row_id)
        file_start += item.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileScan:
    """One file; its pieces count their rows inside the file."""

    item: InputFile
    names: Sequence[str]
    columns: ColumnsConfig
    open_file: OpenFile

    def pieces(self, shard_rows: int) -> Iterator[Scanned]:
        """The file in one go; from the first damage on, shard by shard."""
        row = 0
        try:
            for found in self._read(0, self.item.rows):
                rows = len(next(iter(found.values())))
                yield Scanned(first_row_id=row, rows=rows, columns=found)
                row += rows
        except RowRejected:
            while row < self.item.rows:
                end = min(self.item.rows, (row // shard_rows + 1) * shard_rows)
                yield self._range(row, end - row)
                row = end

    def _range(self, row: int, rows: int) -> Scanned:
        try:
            parts = list(self._read(row, rows))
        except RowRejected as problem:
            return Scanned(first_row_id=row, rows=rows, columns={}, problem=problem)
        found = {name: _joined([part[name] for part in parts]) for name in parts[0]}
        return Scanned(first_row_id=row, rows=rows, columns=found)

    def _read(self, row: int, rows: int) -> Iterator[dict[str, Any]]:
        return scan_columns(
            self.item.file, self.names, self.columns, self.open_file, first_row=row, rows=rows
        )


def _joined(arrays: list[Any]) -> Any:
    return pa.chunked_array(arrays)
