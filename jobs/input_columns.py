"""Whether the columns of an input file fit what was asked, and what to say if not. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from cluster.reader import split_columns
from conf.errors import InputError
from conf.schema import ColumnsConfig

_LIKELY = ("prompt", "caption", "text", "description", "title", "instruction")
_MAX_NAMED = 20


def column_warnings(source: str, schema: pa.Schema, columns: ColumnsConfig) -> list[str]:
    """What is allowed but likely not meant."""
    warnings = []
    kind = schema.field(columns.prompt).type
    if not _is_text(kind) and not pa.types.is_null(kind):
        warnings.append(
            f"{source}: column '{columns.prompt}' holds {kind}; expected text, so every row of it "
            "will be quarantined"
        )
    for name, carried in split_columns(schema.names, columns).carried.items():
        if carried not in (name, "tags"):
            warnings.append(f"the input's column '{name}' is carried as '{carried}'")
    return warnings


def check_columns(source: str, schema: pa.Schema, columns: ColumnsConfig) -> None:
    """Refuse a file without the prompt, without a mapped column, or with one name used twice.

    Raises:
        InputError: naming the file, the column, those that there are, and the likeliest mapping.
    """
    names = list(schema.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{source} has several columns named '{twice[0]}'; rename all but one")
    for item in dataclasses.fields(columns):
        wanted = getattr(columns, item.name)
        if wanted not in names and (item.name == "prompt" or wanted != item.name):
            raise _missing_column(source, schema, item.name, wanted)


def _missing_column(source: str, schema: pa.Schema, name: str, wanted: str) -> InputError:
    listed = ", ".join(schema.names[:_MAX_NAMED]) or "none"
    if len(schema.names) > _MAX_NAMED:
        listed += f" and {len(schema.names) - _MAX_NAMED} more"
    message = f"{source} has no column '{wanted}'; columns: {listed}."
    near = difflib.get_close_matches(wanted, schema.names, n=1)
    best = (near[0] if near else None) if name != "prompt" else _likeliest_prompt(schema, near)
    if best is not None:
        return InputError(f"{message} Map it with {shlex.quote(f'input.columns.{name}={best}')}")
    if wanted != name:
        return InputError(f"{message} It was asked for by input.columns.{name}={wanted}")
    return InputError(f"{message} None of them holds text; a prompt is text")


def _likeliest_prompt(schema: pa.Schema, near: Sequence[str]) -> str | None:
    """The column that most likely holds prompts: by its name, else the first that holds text."""
    text: list[str] = [field.name for field in schema if _is_text(field.type)]
    for word in _LIKELY:
        for name in text:
            if word in name.lower() and "negative" not in name.lower():
                return name
    fallback: list[str] = [name for name in [*near, *text] if name in text and name != "id"]
    return fallback[0] if fallback else None


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
