"""Where ImageMill keeps what can be made again: measured rates, compiled code."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``~/.cache/imagemill``; ``XDG_CACHE_HOME`` is respected. It may not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "imagemill"
