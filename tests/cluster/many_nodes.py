"""A Ray cluster of several nodes on one machine, whose nodes come, go and are taken away.

The nodes live as long as the test's process; jobs run against ``address`` in processes of their own
(``JobProcess``). Nothing here connects the test itself to Ray.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

import psutil
from ray._private.node import Node
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from cluster.ray_start import patiently
from tests.cluster.job_process import title

_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 5}
"""How soon the head notices that a node is dead; Ray's own values make it half a minute."""
_NO_SPARE_PROCESSES = {"prestart_worker_first_driver": False}
_SMALL = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}


class ManyNodes:
    """A context manager: a head without CPUs, and nodes that are added one by one.

    ``address`` is what ``cluster.address`` takes. Processes report their metrics every
    ``metrics_every_s``. With a ``dashboard`` the head has a job server.
    """

    def __init__(self, *, metrics_every_s: float = 10.0, dashboard: bool = False) -> None:
        often = {"metrics_report_interval_ms": int(metrics_every_s * 1000)}
        head = {"num_cpus": 0, "_system_config": _QUICK | _NO_SPARE_PROCESSES | often, **_SMALL}
        if dashboard:
            # any free port: another cluster on this machine may have the usual one
            head |= {"include_dashboard": True, "dashboard_agent_listen_port": 0}
        self._cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))

    def __enter__(self) -> ManyNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """Where the cluster is reached."""
        address: str = self._cluster.address
        return address

    @property
    def dashboard(self) -> str:
        """The URL of the head's dashboard."""
        return f"http://{self._cluster.head_node.address_info['webui_url']}"

    def metrics_addresses(self) -> list[str]:
        """Where each node offers its processes' metrics, host:port."""
        return [
            f"{node.node_ip_address}:{node.metrics_export_port}"
            for node in self._cluster.list_all_nodes()
        ]

    def add_node(
        self, *, cpus: int = 1, gpus: int = 0, labels: Mapping[str, str] | None = None
    ) -> Node:
        """One node more, alive when this returns; GPUs are logical ones."""
        given = {"num_cpus": cpus, "num_gpus": gpus, "labels": dict(labels or {}), **_SMALL}
        return patiently(lambda: self._cluster.add_node(**given))

    def remove_node(self, node: Node) -> None:
        """The node is no more from one moment to the next, with all of its processes."""
        self._cluster.remove_node(node, allow_graceful=False)

    def remove_nodes(self) -> None:
        """Only the head stays, and knows it."""
        for node in list(self._cluster.worker_nodes):
            self.remove_node(node)
        self._cluster.wait_for_nodes()

    def drain_node(self, node: Node, *, notice_s: float) -> None:
        """Tell the cluster, as a provider of spot machines does, that the node goes in so many
        seconds. It does not go by itself: ``remove_node`` ends it."""
        deadline_ms = int((time.time() + notice_s) * 1000)
        accepted, why = GcsClient(address=self.address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "taken away by a test", deadline_ms
        )
        assert accepted, why

    def workers(self, node: Node | None = None) -> list[psutil.Process]:
        """The worker actors, on one node or all, that have begun their work."""
        return self._titled("ray::WorkerActor.run", node)

    def coordinators(self, node: Node | None = None) -> list[psutil.Process]:
        """The coordinator actors, on one node or all."""
        return self._titled("ray::CoordinatorActor", node)

    def _titled(self, start: str, node: Node | None) -> list[psutil.Process]:
        nodes = self._cluster.list_all_nodes() if node is None else [node]
        found = [child for one in nodes for child in _children(one)]
        return [child for child in found if title(child).startswith(start)]


def _children(node: Node) -> list[psutil.Process]:
    """The processes below the node's raylet."""
    try:
        (raylet,) = node.all_processes["raylet"]
        return psutil.Process(raylet.process.pid).children(recursive=True)
    except (KeyError, psutil.NoSuchProcess):
        return []
