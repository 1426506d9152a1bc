"""What costs can be asked by. Pure: names in, expressions over the ledger's columns out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import ConfigError

TAG = "tag:"
DAY_US = 86_400_000_000
"""Microseconds of a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One way to group lines: the ledger columns that it reads, and an SQL expression over them.

    ``tag`` names the tag whose value is meant; its expression is then a column of that name.
    """

    name: str
    columns: tuple[str, ...]
    sql: str
    tag: str | None = None


def _plain(name: str) -> Dimension:
    return Dimension(name=name, columns=(name,), sql=name)


_PLAIN = (
    "job",
    "project",
    "model",
    "sampler",
    "steps",
    "kind",
    "instance_type",
    "purchase_option",
    "provider",
    "region",
    "node",
    "worker",
    "price_version",
)
_DAY = f"CAST(make_timestamp(epoch_us(period_start) // {DAY_US} * {DAY_US}) AS DATE)"
_MADE = (
    Dimension(
        name="size",
        columns=("width", "height"),
        sql="CAST(width AS VARCHAR) || 'x' || CAST(height AS VARCHAR)",
    ),
    Dimension(name="day", columns=("period_start",), sql=_DAY),
    Dimension(name="month", columns=("period_start",), sql=f"strftime({_DAY}, '%Y-%m')"),
    Dimension(name="output", columns=(), sql="output"),
)
DIMENSIONS = {one.name: one for one in (*map(_plain, _PLAIN), *_MADE)}


def dimensions(texts: Sequence[str]) -> tuple[Dimension, ...]:
    """The dimensions that ``texts`` name, several in one text separated by commas.

    Raises:
        ConfigError: one is unknown, with the near ones, or is named twice.
    """
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--by names '{twice}' twice; expected each dimension once")
    return tuple(_dimension(name, f"tag_{place}") for place, name in enumerate(names))


def quoted(name: str) -> str:
    """The name as SQL takes any."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _dimension(name: str, column: str) -> Dimension:
    if name.startswith(TAG) and len(name) > len(TAG):
        return Dimension(name=name, columns=("tags",), sql=column, tag=name.removeprefix(TAG))
    found = DIMENSIONS.get(name)
    if found is None:
        raise _unknown(name)
    return found


def _unknown(name: str) -> ConfigError:
    known = [*DIMENSIONS, f"{TAG}NAME"]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if name.startswith("tag"):
        near = [f"{TAG}NAME, for example {TAG}customer"]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return ConfigError(f"--by '{name}' is no dimension: {hint}known are {', '.join(known)}")
