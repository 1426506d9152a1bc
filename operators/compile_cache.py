"""Compiled code is kept, so that the next worker on this machine need not compile again."""

from __future__ import annotations

import logging
import os

from operators.cache_files import cache_folder

_log = logging.getLogger(__name__)
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def use_compile_cache() -> None:
    """Have torch keep compiled code in our cache folder; call it before the first compilation.

    A folder that the user names in TORCHINDUCTOR_CACHE_DIR stays; torch writes its own into that
    variable as soon as diffusers imports its compiler. One that cannot be written costs only the
    cache.
    """
    # late: it takes seconds, which only who compiles has to spend
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(_VARIABLE, default_cache_dir()) not in ("", default_cache_dir()):
        return
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is read-only")
    except OSError as error:
        _log.warning(
            "compiled code is not kept for the next run: %s", error, extra={"event": "cache_unkept"}
        )
        return
    os.environ[_VARIABLE] = str(folder)
