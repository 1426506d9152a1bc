"""The tags of a row, from whatever its ``tags`` column holds. Pure.

A map, a struct or text that is a JSON object names tags and values. Other text, and each text of a
list, is ``name=value``, several separated by commas; a name alone has the value ``true``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_VALUELESS = "true"


def row_tags(value: Any) -> dict[str, str]:
    """The tags in a cell as Arrow gives it; {} where it holds none."""
    return {name: text for name, text in _pairs(value) if name}


def tags_of(column: Any) -> list[dict[str, str]]:
    """The tags of each cell of an Arrow column."""
    return [row_tags(value) for value in column.to_pylist()]


def _pairs(value: Any) -> Iterable[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(str(name), _text(part)) for name, part in value.items() if part is not None]
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [pair for part in value for pair in _from_part(part)]
    return [(_text(value), _VALUELESS)]


def _from_text(text: str) -> Iterable[tuple[str, str]]:
    if text.lstrip().startswith("{"):
        try:
            return _pairs(json.loads(text))
        except ValueError:
            pass
    parts = [part.partition("=") for part in text.split(",")]
    return [
        (name.strip(), value.strip() if equals else _VALUELESS) for name, equals, value in parts
    ]


def _from_part(part: Any) -> Iterable[tuple[str, str]]:
    """An entry of a list: of a map, that is a pair."""
    if isinstance(part, tuple):
        name, value = part
        return [] if value is None else [(_text(name), _text(value))]
    return _pairs(part)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)
