"""Input cells as plain Python values: what Arrow holds, read leniently where no meaning is lost.

Pure. Whether a value makes sense is decided in ``operators.request``.
"""

from __future__ import annotations

import decimal
from typing import Any

_NUMBERS = frozenset({"seed", "width", "height", "steps", "guidance_scale", "num_images"})


def plain_values(column: Any, name: str) -> list[Any]:
    """An Arrow column as plain Python values for the canonical column ``name``.

    Numbers that are written as text count as numbers, blank text in a number's place as null. A
    cell that cannot be read becomes bytes, which no known column accepts: only its row is lost.
    """
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_cell(scalar) for scalar in column]
    return [_number(value) for value in values] if name in _NUMBERS else values


def label_texts(column: Any) -> list[str | None]:
    """An id column as text; 7.0 reads as 7, since a nullable whole number often is stored so."""
    return [_label(value) for value in plain_values(column, "id")]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return str(error).encode()


def _number(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return value


def _label(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)
