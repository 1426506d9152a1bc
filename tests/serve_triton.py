"""``make triton`` and ``make triton-stop``: a tritonserver in the background with a model to try.

It runs until it is stopped; ``out/triton`` holds its repository, its log and its pid. What follows
``start`` goes to ``imagemill triton export``: the model, ``shapes`` by default, and keys.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from conf.errors import ImageMillError
from jobs.triton_export import export
from tests import triton_environment
from tests.triton_server import STOP_S, TritonPorts, TritonServer

_FOLDER = triton_environment.ROOT / "out" / "triton"
_PORTS = TritonPorts(http=8000, grpc=8001, metrics=8002)


def main(word: str, asked: Sequence[str]) -> int:
    """``start`` or ``stop``; ``asked`` is what to export."""
    server = TritonServer(_FOLDER, _FOLDER / "repository", ports=_PORTS)
    pid_file = _FOLDER / "pid"
    running = _running(pid_file)
    if word == "stop":
        return _stop(server, running, pid_file)
    if running:
        print(
            f"a tritonserver runs already on {server.grpc}, process {running.pid}, and was left as "
            "it is; to serve something else, stop it first: make triton-stop"
        )
        return 0
    try:
        _export(server.repository, asked)
        return _start(server, pid_file)
    except (RuntimeError, ImageMillError) as error:
        print(error, file=sys.stderr)
        return 1


def _export(repository: Path, asked: Sequence[str]) -> None:
    models = [word for word in asked if "=" not in word] or ["shapes"]
    keys = [word for word in asked if "=" in word]
    shutil.rmtree(repository, ignore_errors=True)
    for model in models:
        print("\n".join(export(model, str(repository), keys)[:-1]))


def _start(server: TritonServer, pid_file: Path) -> int:
    server.clean()
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            server.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=triton_environment.variables(),
            start_new_session=True,
        )
    pid_file.write_text(f"{process.pid}\n")
    try:
        server.wait_until_ready(process)
    except BaseException:
        _kill(psutil.Process(process.pid))
        server.clean()
        pid_file.unlink()
        raise
    models = ", ".join(sorted(entry.name for entry in server.repository.iterdir()))
    print(f"tritonserver serves {models} at grpc://{server.grpc} and http://{server.http}.")
    print(f"Its log is {server.log}, its process {process.pid}. Stop it: make triton-stop")
    return 0


def _stop(server: TritonServer, running: psutil.Process | None, pid_file: Path) -> int:
    if running is None:
        print("no tritonserver of 'make triton' runs")
    else:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(STOP_S)
        except psutil.TimeoutExpired:
            print(f"it did not end within {STOP_S:g} s and is killed")
        _kill(running)
        print("tritonserver is stopped")
    server.clean()
    pid_file.unlink(missing_ok=True)
    return 0


def _running(pid_file: Path) -> psutil.Process | None:
    """The server of the pid file, if it is one and lives."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        ours = str(triton_environment.server()) in process.cmdline()
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.Error):
        return None


def _kill(process: psutil.Process) -> None:
    """End what is left of the server and its stubs."""
    deadline_s = time.monotonic() + STOP_S
    while time.monotonic() < deadline_s:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
