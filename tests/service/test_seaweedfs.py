"""The server that other tests rely on: what it must keep over a kill, and what it must refuse."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import s3fs

from tests.seaweedfs import FULL, SeaweedFS, free_ports

_DIES = """
import os, sys
from pathlib import Path
from tests.seaweedfs import SeaweedFS
print(SeaweedFS(Path(sys.argv[1])).start().pid, flush=True)
os.kill(os.getpid(), 9)
"""


def client(server: SeaweedFS) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        endpoint_url=server.endpoint_url,
        key=FULL.access_key,
        secret=FULL.secret_key,
        skip_instance_cache=True,
        use_listings_cache=False,
    )


def lives(pid: int) -> bool:
    """Whether the process runs (one that nobody waited for does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def test_what_was_written_outlives_a_kill_and_a_stop(tmp_path: Path) -> None:
    with SeaweedFS(tmp_path, buckets=("images", "other")) as server:
        first = server.endpoint_url
        client(server).pipe_file("images/a", b"one")
        server.restart()
        assert client(server).cat_file("images/a") == b"one"
        client(server).pipe_file("other/b", b"two")
        server.stop()
        assert server.pid is None
        server.start()
        assert server.endpoint_url == first
        assert client(server).cat_file("other/b") == b"two"


def test_the_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DIES, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    deadline_s = time.monotonic() + 10
    while lives(int(done.stdout)):
        assert time.monotonic() < deadline_s


def test_two_servers_have_ports_of_their_own() -> None:
    ports = free_ports().all()
    assert len({*ports, *(port + 10_000 for port in ports)}) == 10
