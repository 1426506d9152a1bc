"""Numbers that a machine measured once and need not measure again: small files of one user."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from operators.cache_files import cache_folder, read_cached, write_cached

_SCHEMA = 2
_MOST = 10_000
"""Numbers of a file; those that were kept longest ago go first."""


class RememberedNumbers:
    """Positive numbers by key, in the file ``NAME.json``; the last writer of several wins."""

    def __init__(self, name: str) -> None:
        self.path = cache_folder() / f"{name}.json"

    def get(self, *key: object) -> float | None:
        """The number kept under a key, if any."""
        return self._load().get(_text(key))

    def keep(self, number: float, *key: object) -> None:
        """Keep a number under a key."""
        self.keep_all({key: number})

    def keep_all(self, found: Mapping[tuple[object, ...], float | None]) -> None:
        """Keep numbers under their keys; None forgets what is there."""
        numbers = self._load()
        for key, number in found.items():
            numbers.pop(_text(key), None)
            if number is not None:
                numbers[_text(key)] = number
        for oldest in list(numbers)[:-_MOST]:
            del numbers[oldest]
        write_cached(self.path, {"schema": _SCHEMA, "numbers": numbers})

    def _load(self) -> dict[str, float]:
        return read_cached(self.path, _SCHEMA, _numbers) or {}


def _numbers(plain: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): _number(value) for key, value in plain["numbers"].items()}


def _text(key: tuple[object, ...]) -> str:
    return json.dumps([str(part) for part in key], ensure_ascii=False)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"found {value!r}; expected a number above 0")
    return number
