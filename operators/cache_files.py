"""Small JSON files of one user that a machine can make again.

They lie in ``~/.cache/imagemill`` (``XDG_CACHE_HOME`` is respected). Nothing depends on them: a
file that cannot be read or written only costs what it would have saved.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "imagemill"


def read_cached(path: Path, schema: int, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """What ``parse`` makes of a file; None where there is none, or, with a warning, none of use.

    Args:
        parse: raises ValueError, TypeError, KeyError or AttributeError where the content is wrong.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict) or plain.get("schema") != schema:
            raise ValueError(f"expected schema {schema}")
        return parse(plain)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning(
            "ignored what was measured in %s: %s",
            path,
            error,
            extra={"event": "measured_ignored"},
        )
        return None


def write_cached(path: Path, plain: Mapping[str, Any]) -> None:
    """Write a file as a whole; the last of several writers wins."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        log.warning(
            "cannot keep what was measured in %s: %s",
            path,
            error,
            extra={"event": "measured_unkept"},
        )
