"""The configuration's keys by their dotted paths, and near ones for a path that is none."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from conf.errors import UnknownKey
from conf.schema import RunConfig

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """One documented configuration key."""

    path: str
    type_name: str
    help: str
    choices: tuple[str, ...]


def known_keys(cls: type = RunConfig, prefix: str = "") -> Iterator[KeyInfo]:
    """All leaf keys below ``cls`` in declaration order."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        path = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from known_keys(kind, f"{path}.")
        else:
            yield KeyInfo(
                path=path,
                type_name=type_name(kind),
                help=item.metadata["help"],
                choices=item.metadata["choices"],
            )


def nearest_keys(path: str) -> list[str]:
    """Known keys that look like ``path``, best first; groups too where it names no key of one."""
    known = [info.path for info in known_keys()]
    groups = [] if "." in path else [item.name for item in dataclasses.fields(RunConfig)]
    found = difflib.get_close_matches(path, [*known, *groups], n=3, cutoff=0.6)
    leaf = path.rsplit(".", 1)[-1]
    return found or [k for k in known if k.rsplit(".", 1)[-1] == leaf][:3]


def unknown_key(path: str) -> UnknownKey:
    """The error for a key that does not exist."""
    inside = [info.path for info in known_keys() if info.path.startswith(f"{path}.")]
    if inside:
        more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
        return UnknownKey(
            f"'{path}' is a group of keys: {', '.join(inside[:_NAMED])}{more}; give them one by one"
        )
    groups = {item.name for item in dataclasses.fields(RunConfig)}
    near = [f"{name}.…" if name in groups else name for name in nearest_keys(path)]
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "see 'imagemill run --help' for all keys"
    )
    return UnknownKey(f"unknown configuration key '{path}': {hint}")


def type_name(kind: Any) -> str:
    """What a key of this type holds, in words."""
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        arms = typing.get_args(kind)
        return " or ".join("null" if arm is type(None) else type_name(arm) for arm in arms)
    if typing.get_origin(kind) is dict:
        return "a group of keys"
    return names.get(kind, str(kind))
