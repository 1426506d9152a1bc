"""Ray's own processes on this machine: begun, and begun anew where they come up too slowly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import ray

log = logging.getLogger("imagemill")

TRIES = 3
"""Ray gives its processes 30 s to come up, which a machine that swaps or is shared may not keep."""
_RAY = str(Path(ray.__file__).parent)
_GONE_S = 10.0

Begun = TypeVar("Begun")


def patiently(begin: Callable[[], Begun]) -> Begun:
    """What ``begin`` returns, which starts processes of Ray; tried ``TRIES`` times.

    What a try that failed left running is killed before the next one.

    Raises:
        Exception: that of the last try, whatever Ray raised.
    """
    for left in reversed(range(TRIES)):
        before = _ours()
        try:
            return begin()
        except Exception as error:  # Ray raises a bare one where its processes come up too slowly
            ray.shutdown()
            _kill(_ours() - before)
            if not left:
                raise
            log.warning(
                "Ray did not start: %s; it is tried %s",
                str(error).rstrip("."),
                "once more" if left == 1 else f"{left} more times",
                extra={"event": "ray_start_failed"},
            )
    raise AssertionError("unreachable: the last try returns or raises")


def _ours() -> set[psutil.Process]:
    """The processes of Ray that this one began; what those began ends with them."""
    return {child for child in psutil.Process().children() if _is_ray(child)}


def _is_ray(process: psutil.Process) -> bool:
    try:
        return any(_RAY in word for word in process.cmdline())
    except psutil.Error:
        return False


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=_GONE_S)
