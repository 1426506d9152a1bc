"""``input.unique_ids=true``: prove that no two rows share an id, in bounded memory.

Every id becomes 16 bytes (hash, row) in one of several temporary files by its hash; each file is
sorted by itself. Equal hashes are only a suspicion: the ids themselves are read again to settle it.
"""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.cell_values import label_texts
from cluster.input_files import InputFiles
from cluster.plan_file import InputFile
from cluster.reader import OpenFile, scan_columns
from cluster.store import Store
from conf.errors import DuplicateIds
from conf.schema import ColumnsConfig, RunConfig
from jobs.scan import scan_input

_PAIR = np.dtype([("hash", "<u8"), ("row", "<i8")])
_PARTITION_BYTES = 32 * 2**20
_MOST_PARTITIONS = 256

Pairs = npt.NDArray[Any]


def check_unique_ids(config: RunConfig, inputs: Sequence[InputFile], store: Store | None) -> None:
    """Refuse an input in which two rows have the same id; null ids are nobody's duplicate.

    Ids are compared as text. Of several duplicates, the one that shows first in the input is named.

    Raises:
        DuplicateIds: names the id and both places.
    """
    columns, open_file = config.input.columns, InputFiles.of(config, store).open
    rows = sum(item.rows for item in inputs)
    partitions = min(_MOST_PARTITIONS, 1 + rows * _PAIR.itemsize // _PARTITION_BYTES)
    with tempfile.TemporaryDirectory(prefix="imagemill-ids-") as folder:
        files = [Path(folder) / f"{number:03d}" for number in range(partitions)]
        for pairs in _hashed(inputs, columns, open_file):
            _append(files, pairs)
        labels = _Labels(inputs, columns, open_file)
        best: tuple[int, int] | None = None
        for file in files:
            if file.exists():
                best = _first_duplicate(np.fromfile(file, dtype=_PAIR), labels, best)
    if best is not None:
        raise DuplicateIds(
            f"id '{labels.at(best[0])}' is given twice: {labels.place(best[0])} and "
            f"{labels.place(best[1])} (rows count from 0). Make the ids unique, or set "
            "input.unique_ids=false"
        )


def _hash(label: str) -> int:
    digest = hashlib.blake2b(label.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _hashed(
    inputs: Sequence[InputFile], columns: ColumnsConfig, open_file: OpenFile
) -> Iterator[Pairs]:
    for scanned in scan_input(inputs, ("id",), columns, open_file):
        if scanned.problem is not None:
            continue  # those rows are going to be quarantined; they have no ids
        labels = label_texts(scanned.columns["id"])
        first = scanned.first_row_id
        found = [(_hash(text), first + i) for i, text in enumerate(labels) if text is not None]
        yield np.array(found, dtype=_PAIR)


def _append(files: Sequence[Path], pairs: Pairs) -> None:
    partition = pairs["hash"] % np.uint64(len(files))
    for number in np.unique(partition):
        with files[int(number)].open("ab") as file:
            file.write(pairs[partition == number].tobytes())


def _first_duplicate(
    pairs: Pairs, labels: _Labels, best: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The real duplicate whose second row is the smallest, of this partition and ``best``."""
    pairs = pairs[np.lexsort((pairs["row"], pairs["hash"]))]
    hashes = pairs["hash"]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    starts = same[np.concatenate(([True], hashes[same[1:]] != hashes[same[:-1]]))[: len(same)]]
    for start in starts[np.argsort(pairs["row"][starts + 1], kind="stable")]:
        if best is not None and int(pairs["row"][start + 1]) >= best[1]:
            break
        end = int(np.searchsorted(hashes, hashes[start], side="right"))
        found = _settle(pairs["row"][start:end], labels)
        if found is not None and (best is None or found[1] < best[1]):
            best = found
    return best


def _settle(rows: npt.NDArray[np.int64], labels: _Labels) -> tuple[int, int] | None:
    """The first two of these rows, all with one hash, that really have the same id."""
    seen: dict[str, int] = {}
    for row in rows:
        label = labels.at(int(row))
        if label in seen:
            return seen[label], int(row)
        seen[label] = int(row)
    return None


class _Labels:
    """Reads single ids again by row id."""

    def __init__(
        self, inputs: Sequence[InputFile], columns: ColumnsConfig, open_file: OpenFile
    ) -> None:
        self._inputs = [item for item in inputs if item.rows]
        self._ends = list(accumulate(item.rows for item in self._inputs))
        self._columns = columns
        self._open_file = open_file

    def at(self, row_id: int) -> str:
        item, row = self._find(row_id)
        found = next(
            scan_columns(item.file, ("id",), self._columns, self._open_file, first_row=row, rows=1)
        )
        return str(label_texts(found["id"])[0])

    def place(self, row_id: int) -> str:
        item, row = self._find(row_id)
        return f"{item.source} row {item.source_row + row}"

    def _find(self, row_id: int) -> tuple[InputFile, int]:
        number = bisect_right(self._ends, row_id)
        item = self._inputs[number]
        return item, row_id - (self._ends[number] - item.rows)
