"""A Ray cluster on one machine that Ray's own autoscaler (version 2) grows and shrinks.

Its nodes are those of Ray's fake provider, as in ``ray.cluster_utils.AutoscalingCluster``. That one
is not used itself: it begins and ends with ``ray stop --force``, which kills every other Ray of the
machine, and reads a file that the wheels of Ray lack.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
)

from tests.cluster.job_process import title, wait_until

_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_IDLE_MINUTES = 0.05
_ENVIRONMENT = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
}
_NOTHING_TO_RUN = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


class AutoscaledNodes:
    """A context manager: a head without CPUs, and up to ``most`` nodes with one CPU and one GPU,
    which are there only while somebody needs them."""

    def __init__(self, *, most: int) -> None:
        # sockets need a short path
        self._folder = Path(tempfile.mkdtemp(prefix="nodes", dir="/tmp"))
        ip, port = get_node_ip_address(), _free_port()
        self.address = f"{ip}:{port}"
        config = self._folder / "autoscaler.json"
        config.write_text(json.dumps(_config(self.address, most)))
        with (self._folder / "head.log").open("w") as log:
            self._head = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "ray"),
                    *("start", "--head", "--block", f"--port={port}", "--num-cpus=0"),
                    *("--include-dashboard=false", "--dashboard-agent-listen-port=0"),
                    # any free port: the usual range is that of the other servers of the tests
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    f"--temp-dir={self._folder}",
                    f"--object-store-memory={_OBJECT_STORE_BYTES}",
                    f"--autoscaling-config={config}",
                ],
                env={**os.environ, **_ENVIRONMENT},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> AutoscaledNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing that was started here stays."""
        while processes := [*self._below_head(), *self._strays()]:
            for process in processes:
                _kill(process)
            psutil.wait_procs(processes, timeout=5)
        self._head.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def await_head(self) -> None:
        """Wait until the autoscaler is up."""
        log = self._folder / "session_latest" / "logs" / "monitor.log"
        begun = "Using Autoscaling Config"

        def up() -> bool:
            self._tree()
            return log.exists() and begun in log.read_text()

        wait_until(up, "the head's autoscaler")

    def nodes(self) -> list[psutil.Process]:
        """The raylets of the nodes that the autoscaler added and that live."""
        (monitor,) = self._monitors()
        return [one for one in _below(monitor) if "/raylet/raylet" in title(one)]

    def workers(self) -> list[psutil.Process]:
        """The worker actors that have begun their work."""
        return [one for one in self._tree() if title(one).startswith("ray::WorkerActor.run")]

    def node_of(self, worker: psutil.Process) -> psutil.Process:
        """The raylet of a worker's node."""
        (node,) = [one for one in self.nodes() if worker in _below(one)]
        return node

    def kill(self, node: psutil.Process) -> None:
        """The node is no more from one moment to the next, with all of its processes."""
        for process in [node, *_below(node)]:
            _kill(process)

    def _monitors(self) -> list[psutil.Process]:
        return [one for one in self._tree() if "v2/monitor.py" in title(one)]

    def _tree(self) -> list[psutil.Process]:
        assert self._head.poll() is None, (self._folder / "head.log").read_text()
        return self._below_head()

    def _below_head(self) -> list[psutil.Process]:
        if self._head.poll() is not None:
            return []
        head = psutil.Process(self._head.pid)
        return [head, *_below(head)]

    def _strays(self) -> list[psutil.Process]:
        """What lost its parent: all of it names the folder."""
        return [one for one in psutil.process_iter() if str(self._folder) in title(one)]


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _config(gcs_address: str, most: int) -> dict[str, object]:
    worker = {"CPU": 1, "GPU": 1, "object_store_memory": _OBJECT_STORE_BYTES}
    return {
        "cluster_name": "fake",
        "max_workers": most,
        "idle_timeout_minutes": _IDLE_MINUTES,
        "upscaling_speed": most,
        "provider": {
            "type": "external",
            "module": _PROVIDER,
            "gcs_address": gcs_address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": worker, "node_config": {}, "max_workers": most},
        },
        "file_mounts": {},
        **{name: [] for name in _NOTHING_TO_RUN},
    }
