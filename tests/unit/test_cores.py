"""How many cores a process may use, by its affinity and the limits of its control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster.cores import usable_cores

ALL = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def machine(root: Path, groups: str, files: Mapping[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/pods/ours\n", {"pods/cpu.max": "800000 100000\n", "pods/ours/cpu.max": "max 1\n"}, 8),
        ("0::/pods/ours\n", {"cpu.max": "300000 100000\n"}, 3),
        ("3:cpuset:/a\n2:cpu,cpuacct:/a\n0::/\n", v1("cpu/a", 200_000), 2),
        ("2:cpu,cpuacct:/docker/of-the-host\n", v1("cpu", 500_000), 5),
        ("2:cpu:/\n0::/\n", v1("cpu", -1), 64),
        ("3:cpuset:/a\n", v1("cpuset/a", 200_000), 64),
        ("", {}, 64),
    ],
)
def test_the_least_limit_above_a_process_counts(
    tmp_path: Path, groups: str, files: dict[str, str], cores: int
) -> None:
    assert usable_cores(machine(tmp_path, groups, files)) == cores


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 64


CODE = "from cluster.cores import usable_cores; print(usable_cores())"


def test_a_process_with_fewer_cores_by_affinity_sees_these() -> None:
    command = ["taskset", "--cpu-list", "0", sys.executable, "-c", CODE]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_limit_of_a_real_control_group_is_seen() -> None:
    version_1 = Path("/sys/fs/cgroup/cpu")
    if ALL < 2 or os.geteuid() or not version_1.exists():
        pytest.skip("needs root, two cores and control groups of version 1")
    group = version_1 / f"imagemill-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("150000")
        join = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -c '{CODE}'"
        done = subprocess.run(["sh", "-c", join], capture_output=True, text=True, check=True)
    finally:
        group.rmdir()
    assert done.stdout == "1\n"
