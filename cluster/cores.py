"""How many CPU cores this process may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_V2, _V1 = "cpu.max", ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def usable_cores(root: Path = Path("/")) -> int:
    """Whole cores, at least 1: the affinity of the process, or its CPU limit where that is less.

    The limit is the least of those of its control group and the ones above, version 1 or 2, which
    is where Docker's ``--cpus`` and a pod's ``limits.cpu`` are written.

    Args:
        root: where the file system begins that tells of control groups.
    """
    limit = min(_limits(root), default=float("inf"))
    return max(1, int(min(_by_affinity(), limit)))


def _by_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limits(root: Path) -> Iterator[float]:
    """The cores that each group above this process may use, where it says so."""
    groups = _read(root / "proc/self/cgroup") or ""
    for line in groups.splitlines():
        _, names, path = line.split(":", 2)
        if names and "cpu" not in names.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if names else "")
        # in a container the path may be the host's, and the group itself lies at the mount
        inner = Path(path.lstrip("/"))
        for folder in (mount / inner, *(mount / above for above in inner.parents)):
            yield from _limit(folder)


def _limit(folder: Path) -> Iterator[float]:
    v2 = _read(folder / _V2)
    quota, period = v2.split() if v2 else (_read(folder / name) for name in _V1)
    if quota and period and quota.strip() not in ("max", "-1"):
        yield int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
