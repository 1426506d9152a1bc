"""A job in a process of its own, driven and killed from outside as a user or an outage would."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.cli import main

WAIT_S = 120.0
_LOOKING = ("cancel", "cost", "report", "status", "verify")


def write_prompts(path: Path, rows: list[dict[str, object]]) -> Path:
    """A Parquet file of prompts."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for something that another process does; fails by name."""
    never = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        never.wait(0.05)
    raise AssertionError(f"waited {timeout_s:g} s in vain: {what}")


_begun: list[JobProcess] = []


def end_jobs() -> None:
    """End the jobs that a failed test did not wait for, and print what they said."""
    while _begun:
        _begun.pop().abandon()


class JobProcess:
    """``imagemill`` with arguments, its output captured; ``environment`` is added to ours."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.arguments = arguments
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobs.entry", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self.output = ""
        _begun.append(self)

    def workers(self) -> list[psutil.Process]:
        """The worker actors of this job that have begun their work."""
        return self._titled("ray::WorkerActor.run")

    def coordinator(self) -> psutil.Process:
        """The coordinator actor of this job."""
        (found,) = self._titled("ray::CoordinatorActor")
        return found

    def _titled(self, start: str) -> list[psutil.Process]:
        return titled(start, self._process.pid)

    @property
    def pid(self) -> int:
        """The driver's process id."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Signal the driver alone."""
        os.kill(self._process.pid, number)

    def finish(self, timeout_s: float = 180.0) -> int:
        """Wait for the end; returns the exit status."""
        self.output, _ = self._process.communicate(timeout=timeout_s)
        return self._process.returncode

    def running(self) -> bool:
        """Whether the driver still runs."""
        return self._process.poll() is None

    def wait_until(
        self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S
    ) -> None:
        """Wait for something while the job runs; fails by name and with what the job said."""
        wait_until(lambda: condition() or not self.running(), what, timeout_s)
        if not self.running():
            raise AssertionError(f"the job ended with {self.finish()} before {what}: {self.output}")

    def abandon(self) -> None:
        """Kill it, unless its end was waited for, and print what it said."""
        if self._process.stdout is None or self._process.stdout.closed:
            return
        self._process.kill()
        print(f"nobody waited for this job; it ended with {self.finish()}:\n{self.output}")


def titled(start: str, above: int) -> list[psutil.Process]:
    """The processes below this process id whose titles start so."""
    try:
        children = psutil.Process(above).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if title(child).startswith(start)]


def title(process: psutil.Process) -> str:
    """What the process calls itself; empty when it is no more."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def imagemill(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; returns the exit status and what was printed.

    One that begins no worker runs in this process, unless an ``environment`` is added to ours.
    """
    if arguments[0] in _LOOKING and environment is None:
        return _looked(arguments)
    job = JobProcess(*arguments, environment=environment)
    return job.finish(), job.output


def _looked(arguments: tuple[str, ...]) -> tuple[int, str]:
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = main(arguments)
    return status, printed.getvalue()


def commit_count(output: Path) -> int:
    """How many commit records an output holds."""
    return len(list(output.glob("commits/*/*/*.json")))


def images_by_id(output: Path) -> dict[str, bytes]:
    """The committed pictures by image id, read through the counted metadata; ids must be unique."""
    found: dict[str, bytes] = {}
    for key in counted_metadata(output):
        for row in pq.read_table(output / key, columns=["image_id", "object"]).to_pylist():
            assert row["image_id"] not in found, f"{row['image_id']} is committed twice"
            found[row["image_id"]] = (output / row["object"]).read_bytes()
    return found


def counted_metadata(output: Path) -> list[str]:
    """Keys of the metadata that count, by the rule of the protocol, told here independently."""
    keys: list[str] = []
    for folder in sorted((output / "leases").glob("*/*")):
        newest = json.loads(max(folder.glob("*.json")).read_text())
        commits = [item["key"] for item in newest["accepted"]]
        if not newest["sealed"]:
            pattern = f"{newest['epoch']:06d}-*.json"
            own = (output / "commits" / folder.parent.name / folder.name).glob(pattern)
            commits += [str(path.relative_to(output)) for path in own]
        for commit in commits:
            metadata = json.loads((output / commit).read_text())["metadata"]
            keys += [metadata["key"]] if metadata else []
    return keys
