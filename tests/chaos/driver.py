"""``imagemill`` as a process of its own, with all that it started; to be killed in any way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

_END_S = 240.0
_GONE_S = 60.0
_ACTORS = ("ray::WorkerActor", "ray::CoordinatorActor")


class Driver:
    """A command that runs; its output goes to a file, so that no orphan can hold a pipe open."""

    def __init__(
        self, arguments: Iterable[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        self.arguments = tuple(arguments)
        self.log = log
        self._seen: dict[int, psutil.Process] = {}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobs.entry", *self.arguments],
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**environment, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def output(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")

    @property
    def process(self) -> psutil.Process:
        """The driver itself."""
        return psutil.Process(self._process.pid)

    def running(self) -> bool:
        """Whether the driver runs."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Signal the driver alone."""
        os.kill(self._process.pid, number)

    def tree(self) -> list[psutil.Process]:
        """The driver and all that it started and that still lives."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for found in [self.process, *self.process.children(recursive=True)]:
                self._seen[found.pid] = found
        return [found for found in self._seen.values() if found.is_running()]

    def workers(self) -> list[psutil.Process]:
        """The worker actors that have begun their work."""
        return [p for p in self.tree() if title(p).startswith("ray::WorkerActor.run")]

    def coordinator(self) -> psutil.Process:
        """The coordinator actor."""
        (found,) = [p for p in self.tree() if title(p).startswith("ray::CoordinatorActor")]
        return found

    def kill_alone(self) -> None:
        """``kill -9`` of the driver; returns when its workers and its coordinator are gone too."""
        actors = [p for p in self.tree() if title(p).startswith(_ACTORS)]
        self._process.kill()
        self._process.wait(_GONE_S)
        _await_gone(actors)

    def kill_all(self) -> None:
        """``kill -9`` of the driver and everything that it started, all at once."""
        for found in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.kill()
        self._process.wait(_GONE_S)
        _await_gone(self._seen.values())

    def wait(self, timeout_s: float = _END_S) -> int:
        """Wait for the end; returns the exit status, negative for a signal.

        Raises:
            AssertionError: it runs still; the message holds what it said.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            said = self.output[-3000:]
            raise AssertionError(f"still at work after {timeout_s:g} s:\n{said}") from error


def title(process: psutil.Process) -> str:
    """How the process calls itself; empty when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _await_gone(processes: Iterable[psutil.Process]) -> None:
    """Raises AssertionError when some live on."""
    _, alive = psutil.wait_procs(list(processes), timeout=_GONE_S)
    assert not alive, f"these outlived their driver: {[title(p).strip() for p in alive]}"
