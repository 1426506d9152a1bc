"""How values of any Arrow type are written where a format lacks their type: JSON, and `datasets`.

Pure. The metadata tables hold the values themselves; what is lost here is never lost there.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa


def json_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The table's rows as what JSON can hold; see ``json_value``."""
    columns = [_cells(column) for column in table.columns]
    for cells in zip(*columns, strict=True):
        yield {name: json_value(cell) for name, cell in zip(table.column_names, cells, strict=True)}


def json_value(value: Any) -> Any:
    """A cell as JSON: NaN and infinity as null, bytes as base64, times in ISO 8601, maps as pairs.

    Decimals and durations become text, since a float would not hold them exactly.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): json_value(part) for name, part in value.items()}
    if isinstance(value, tuple):  # an entry of a map
        return {"key": json_value(value[0]), "value": json_value(value[1])}
    if isinstance(value, list):
        return [json_value(part) for part in value]
    return value.isoformat() if hasattr(value, "year") or hasattr(value, "hour") else str(value)


def without_maps(table: pa.Table) -> pa.Table:
    """The table with each map as a list of structs ``key``, ``value``, which ``datasets`` opens."""
    for place, column in enumerate(table.schema):
        kind = without_map_types(column.type)
        if kind != column.type:
            values = [_pairs(value) for value in table.column(place).to_pylist()]
            table = table.set_column(place, column.with_type(kind), pa.array(values, kind))
    return table


def without_map_types(kind: pa.DataType) -> pa.DataType:
    """The type that ``without_maps`` gives a column."""
    if pa.types.is_map(kind):
        entry = [("key", without_map_types(kind.key_type))]
        return pa.list_(pa.struct([*entry, ("value", without_map_types(kind.item_type))]))
    if pa.types.is_struct(kind):
        return pa.struct([part.with_type(without_map_types(part.type)) for part in kind])
    if pa.types.is_list(kind):
        return pa.list_(without_map_types(kind.value_type))
    return kind


def _pairs(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"key": _pairs(value[0]), "value": _pairs(value[1])}
    if isinstance(value, list):
        return [_pairs(part) for part in value]
    if isinstance(value, dict):
        return {name: _pairs(part) for name, part in value.items()}
    return value


def _cells(column: Any) -> list[Any]:
    """A column as Python values; a cell that Python cannot hold (the year 12000) becomes null."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_cell(scalar) for scalar in column]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return None
