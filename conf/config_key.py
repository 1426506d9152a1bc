"""How a field of the configuration's dataclasses says what it is."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def key(help_text: str, *, choices: tuple[str, ...] = (), low: float | None = None) -> Any:
    """A configuration key: its help text and what values it may take."""
    return field(metadata={"help": help_text, "choices": choices, "low": low})
