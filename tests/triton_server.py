"""A real Triton Inference Server for tests and for ``make triton``: one process and its stubs.

Owns the processes, their ports and their shared memory. Knows nothing of ImageMill's models.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tests import triton_environment

_FIRST_PORT, _LAST_PORT = 22_100, 28_000
_READY_S = 300.0
"""A model takes 10 s where the machine does nothing else."""
_ANSWER_S = 1.0
STOP_S = 40.0
"""A server whose stub is dead takes 32 s to end."""
_LAST, _LONGEST = 4, 1000
"""Errors of the log that are told, and characters of each."""
_SHARED_MEMORY = Path("/dev/shm")
_OURS = "triton_imagemill_"
_YOUNG_S = 60.0
"""A file this young may belong to a server that has not mapped it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonPorts:
    """The ports of one server."""

    http: int
    grpc: int
    metrics: int


class TritonServer:
    """One server on loopback, serving the models of ``repository``.

    It may be stopped, killed, frozen and started again: ports and models stay. It dies with the
    thread that started it (Linux), at the latest with this process.

    Args:
        folder: made where it is missing; holds ``log``.
        repository: a model repository.
        ports: free ones by default.
        explicit: models to load at the start; they can be loaded and unloaded by clients then.
            None: all models, for good.
        arguments: more arguments of tritonserver, e.g. ``--log-verbose=1``.
    """

    def __init__(
        self,
        folder: Path,
        repository: Path,
        *,
        ports: TritonPorts | None = None,
        explicit: Sequence[str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.repository = repository
        self.ports = ports or free_ports()
        self._explicit = explicit
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def grpc(self) -> str:
        """host:port of its gRPC interface."""
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def http(self) -> str:
        """host:port of its HTTP interface."""
        return f"127.0.0.1:{self.ports.http}"

    @property
    def pid(self) -> int | None:
        """The server's process, None when it is down."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """What the server and its models said."""
        return self.folder / "log"

    def start(self) -> Self:
        """Start it and wait until its models are ready.

        Raises:
            RuntimeError: it ended or was not ready in time; the message ends with the log's errors.
        """
        if self._process is not None:
            raise RuntimeError(f"the server on {self.grpc} runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clean()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_dies_with_us(), *self.command()],
                stdout=log,
                stderr=log,
                env=triton_environment.variables(),
                start_new_session=True,
            )
        atexit.register(self.kill)
        try:
            self.wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it in good order: what it is working on is answered. One that is down stays so."""
        if self._process and self.stubs():
            self._process.terminate()
            os.killpg(self._process.pid, signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        # without a stub it would only wait for it
        self.kill()

    def kill(self) -> None:
        """``kill -9`` of the server and its stubs, of which no shared memory stays. One that is
        down stays so."""
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.clean()

    def restart(self) -> Self:
        """Kill it and start it again on the same ports."""
        self.kill()
        return self.start()

    def kill_stubs(self) -> list[int]:
        """``kill -9`` of the processes in which models run; the server lives on. Returns them."""
        stubs = self.stubs()
        for pid in stubs:
            os.kill(pid, signal.SIGKILL)
        return stubs

    def stubs(self) -> list[int]:
        """The processes in which models run."""
        children = psutil.Process(self._running().pid).children()
        return [child.pid for child in children if triton_environment.is_stub(child.pid)]

    def pause(self) -> None:
        """Freeze it and its stubs (SIGSTOP): connections are taken and never answered."""
        os.killpg(self._running().pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after ``pause``."""
        os.killpg(self._running().pid, signal.SIGCONT)

    def regions(self) -> list[str]:
        """The names of the regions of its clients' shared memory that it has open."""
        with urllib.request.urlopen(f"http://{self.http}/v2/systemsharedmemory/status") as answer:
            return sorted(region["name"] for region in json.load(answer))

    def shared_memory(self) -> list[Path]:
        """The files in /dev/shm of the server's python backend."""
        return sorted(_SHARED_MEMORY.glob(f"{self._prefix}*"))

    def clean(self) -> None:
        """Remove the shared memory of this server, which is down, and of any of our servers that
        nobody was left to clean up after; end their stubs, which do not always see it."""
        for orphan in _orphans():
            with suppress(psutil.Error):
                orphan.kill()
        for file in {*self.shared_memory(), *_abandoned()}:
            file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.kill()

    @property
    def _prefix(self) -> str:
        return f"{_OURS}{self.ports.grpc}_"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"the server on {self.grpc} is down")
        return self._process

    def command(self) -> list[str]:
        """How the server is started."""
        ports = self.ports
        explicit = []
        if self._explicit is not None:
            explicit = ["--model-control-mode=explicit"]
            explicit += [f"--load-model={name}" for name in self._explicit]
        return [
            str(triton_environment.server()),
            f"--model-repository={self.repository}",
            f"--backend-directory={triton_environment.backends()}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            "--allow-gpu-metrics=false",
            *explicit,
            *self._arguments,
        ]

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the process answers that all its models are ready.

        Raises:
            RuntimeError: it ended or was not ready in time; the message ends with the log's errors.
        """
        deadline_s = time.monotonic() + _READY_S
        while not _answers(f"http://{self.http}/v2/health/ready"):
            if process.poll() is not None:
                raise RuntimeError(f"tritonserver ended at once; {self._end_of_log()}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"tritonserver is not ready; {self._end_of_log()}")
            time.sleep(0.05)

    def _end_of_log(self) -> str:
        """The last errors of the log, which ends with a page of its options."""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line[:_LONGEST] for line in lines if line.startswith(("E", "error:"))]
        return "\n".join([f"its log {self.log} says:", *errors[-_LAST:]])


def free_ports() -> TritonPorts:
    """Ports at which nobody listens; another may still come first."""
    wanted = random.Random().sample(range(_FIRST_PORT, _LAST_PORT), 100)
    http, grpc, metrics = [port for port in wanted if _is_free(port)][:3]
    return TritonPorts(http=http, grpc=grpc, metrics=metrics)


def _abandoned() -> list[Path]:
    """Shared memory of our servers that no process maps any more."""
    old_s = time.time() - _YOUNG_S
    found = []
    for file in _SHARED_MEMORY.glob(f"{_OURS}*"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < old_s:
                found.append(file)
    if not found:
        return []
    mapped = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            mapped |= {region.path for region in process.memory_maps()}
    return [file for file in found if str(file) not in mapped]


def _orphans() -> list[psutil.Process]:
    """Stubs of our servers whose server is gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if not triton_environment.is_stub(process.pid):
                continue
            parent = process.parent()
            ours = any(word.startswith(_OURS) for word in process.cmdline())
            if ours and (parent is None or parent.name() != "tritonserver"):
                found.append(process)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _dies_with_us() -> list[str]:
    """util-linux's program that ties a child's life to ours, where there is one."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
