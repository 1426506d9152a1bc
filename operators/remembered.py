"""Numbers that a machine measured once and need not measure again: small files of one user.

They lie in ``~/.cache/imagemill`` (``XDG_CACHE_HOME`` is respected). Nothing depends on them: a
file that cannot be read or written only costs what it would have saved.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

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
        text = json.dumps({"schema": _SCHEMA, "numbers": numbers}, indent=1)
        temporary = self.path.with_name(f".{self.path.name}-{secrets.token_hex(6)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            log.warning(
                "cannot keep what was measured in %s: %s",
                self.path,
                error,
                extra={"event": "measured_unkept"},
            )

    def _load(self) -> dict[str, float]:
        try:
            plain = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA:
                raise ValueError(f"expected schema {_SCHEMA}")
            return {str(key): _number(value) for key, value in plain["numbers"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning(
                "ignored what was measured in %s: %s",
                self.path,
                error,
                extra={"event": "measured_ignored"},
            )
            return {}


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "imagemill"


def _text(key: tuple[object, ...]) -> str:
    return json.dumps([str(part) for part in key], ensure_ascii=False)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"found {value!r}; expected a number above 0")
    return number
