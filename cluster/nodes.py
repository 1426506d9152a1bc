"""The nodes of the connected Ray cluster: what each has, what is free, which are taken away.

The only place that knows where Ray keeps this. Nodes that are being taken away and what is free are
told by Ray only to its own processes, so that a driver behind ``ray://`` has an actor ask.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import ray
from ray.exceptions import RayError

log = logging.getLogger("imagemill")
_UNKNOWN = (AttributeError, ImportError, ConnectionError, RuntimeError, ValueError, RayError)
"""What Ray's private calls raise when they are not there, or not for us, or not now."""
_ROUNDING = 1e-6
_ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one worker needs, all of it on one node."""

    gpus: float
    cpus: float = 1.0

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}"

    def times(self, *, cpus: float, gpus: float) -> int:
        """How many workers so much of one node holds."""
        by_cpu = int(cpus / self.cpus + _ROUNDING)
        return min(by_cpu, int(gpus / self.gpus + _ROUNDING)) if self.gpus else by_cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that lives. ``draining``: Ray was told that it will be taken away. ``accelerator``: as
    Ray names its GPUs ("L4"); "" where it does not."""

    node_id: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    draining: bool = False
    accelerator: str = ""

    def holds(self, shape: Shape) -> int:
        """How many workers it can hold when nothing else is on it."""
        return shape.times(cpus=self.cpus, gpus=self.gpus)

    def threads_each(self, shape: Shape, *, at_most: int | None) -> int:
        """CPU threads of a worker where as many share the node as it holds, or ``at_most``."""
        holds = self.holds(shape)
        together = holds if at_most is None else min(holds, at_most)
        return max(1, int(self.cpus) // max(1, together))

    def room(self, shape: Shape) -> int:
        """How many workers more it can take now."""
        free = shape.times(cpus=self.free_cpus, gpus=self.free_gpus)
        return 0 if self.draining else free


def whole_nodes() -> tuple[Node, ...]:
    """The nodes that live, each as if it were free."""
    found = []
    for entry in ray.nodes():
        if entry["Alive"]:
            given = entry["Resources"]
            cpus, gpus = (float(given.get(name, 0)) for name in ("CPU", "GPU"))
            types = (name for name in given if name.startswith(_ACCELERATOR))
            found.append(
                Node(
                    node_id=entry["NodeID"],
                    cpus=cpus,
                    gpus=gpus,
                    free_cpus=cpus,
                    free_gpus=gpus,
                    accelerator=next(types, "").removeprefix(_ACCELERATOR),
                )
            )
    return tuple(found)


def nodes_now() -> tuple[Node, ...]:
    """The nodes that live, with what is free on them and whether they are being taken away.

    Where Ray does not tell, all is taken for free and none for going.
    """
    free, draining = _free_per_node(), _draining()
    return tuple(
        replace(
            node,
            free_cpus=node.cpus if free is None else free.get(node.node_id, {}).get("CPU", 0.0),
            free_gpus=node.gpus if free is None else free.get(node.node_id, {}).get("GPU", 0.0),
            draining=node.node_id in draining,
        )
        for node in whole_nodes()
    )


def _free_per_node() -> dict[str, dict[str, float]] | None:
    try:
        found: dict[str, dict[str, float]] = ray._private.state.state.available_resources_per_node()
    except _UNKNOWN as error:
        log.debug("Ray does not say what is free: %s", error, extra={"event": "free_unknown"})
        return None
    return found


def _draining() -> frozenset[str]:
    try:
        return frozenset(ray._private.state.state.get_draining_nodes())
    except _UNKNOWN as error:
        log.debug("Ray does not say which nodes go: %s", error, extra={"event": "drain_unknown"})
        return frozenset()


def may_come(shape: Shape) -> bool:
    """Whether an autoscaler says that it could add a node which holds such a worker."""
    try:
        config = ray._private.state.state.get_cluster_config()
    except _UNKNOWN as error:
        log.debug("Ray names no autoscaler: %s", error, extra={"event": "no_autoscaler"})
        return False
    return config is not None and any(
        group.max_count != 0
        and shape.times(cpus=group.resources.get("CPU", 0), gpus=group.resources.get("GPU", 0))
        for group in config.node_group_configs
    )


def described(nodes: Iterable[Node], *, free: bool) -> str:
    """The sums of CPUs and GPUs, and the largest node where there are several."""
    seen = [(n.free_cpus, n.free_gpus) if free else (n.cpus, n.gpus) for n in nodes]
    cpus, gpus = sum(c for c, _ in seen), sum(g for _, g in seen)
    return f"{cpus:g} CPU, {gpus:g} GPU on {len(seen)} node{'' if len(seen) == 1 else 's'}"
