"""Columns of money as integers of 1e-9 currency units and back, exactly and without a loop.

A decimal128 is stored as a little-endian integer of 16 bytes; an amount fits into the lower eight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.tables import MONEY


def nano_of(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The amounts of a column of ``MONEY``; 0 where a cell is null."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not len(array):
        return np.zeros(0, np.int64)
    words = np.frombuffer(array.buffers()[1], np.int64).reshape(-1, 2)
    amounts = words[array.offset : array.offset + len(array), 0]
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), amounts, 0)


def money_of(amounts: Sequence[int]) -> pa.Array:
    """The amounts as a column of ``MONEY``."""
    low = np.array(amounts, np.int64)
    words = np.stack([low, low >> 63], axis=1)
    return pa.Array.from_buffers(MONEY, len(low), [None, pa.py_buffer(words.tobytes())])
