"""What the measured processes find in their environment, and what machine they are on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psutil

from cluster.worker_environment import worker_environment

_PACKAGES = ("torch", "diffusers", "ray", "pyarrow")


def threads() -> int:
    """CPU threads of every way: all that this process may use."""
    return len(os.sched_getaffinity(0))


def our_environment() -> dict[str, str]:
    """What an ImageMill worker without a GPU has, with all threads of the machine."""
    return worker_environment({}, gpus=0.0, threads=threads())


def competitor_environment(*, same_malloc: bool) -> dict[str, str]:
    """The worker's threads; its settings of memory allocation too, or those of the system."""
    ours = our_environment()
    return {name: ours[name] for name in ours if same_malloc or not name.startswith("MALLOC_")}


@contextmanager
def as_environment(added: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def machine() -> dict[str, object]:
    """What a reader must know to judge the numbers."""
    return {
        "cpu": _cpu(),
        "threads": threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
