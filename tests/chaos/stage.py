"""What all faults share: one store, one proxy before it, one running Ray cluster.

Most faults run on the cluster that is up already, as users do; those that take a driver or a
cluster down start a Ray of their own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.proxy import STAGE, Proxy
from tests.cluster.many_nodes import ManyNodes
from tests.seaweedfs import SeaweedFS

ROOT = Path(__file__).parents[2]
NODES, CPUS = 2, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """``address`` is the shared cluster's; ``folder`` is for logs."""

    store: SeaweedFS
    proxy: Proxy
    folder: Path
    address: str
    seed: int


@contextlib.contextmanager
def stage(seed: int) -> Iterator[Stage]:
    """Bring everything up, and down again."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        SeaweedFS(Path(name) / "store") as store,
        Proxy(store.endpoint_url, seed=seed) as proxy,
        cluster(environment(store, proxy)) as nodes,
    ):
        for _ in range(NODES):
            nodes.add_node(cpus=CPUS)
        yield Stage(store=store, proxy=proxy, folder=Path(name), address=nodes.address, seed=seed)


def environment(store: SeaweedFS, proxy: Proxy) -> dict[str, str]:
    """Where processes under test find the store (through the proxy) and the instrument."""
    return {
        **store.environment(),
        "AWS_ENDPOINT_URL": proxy.url,
        "CHAOS_STAGE_URL": f"{proxy.url}{STAGE}",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "instrument"), str(ROOT)]),
        "OMP_WAIT_POLICY": "PASSIVE",
        # what only draws a matrix out: actors that yield to other work, processes kept in stock
        "RAY_worker_niceness": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
    }


@contextlib.contextmanager
def cluster(more: Mapping[str, str]) -> Iterator[ManyNodes]:
    """A cluster of several nodes whose processes see this environment, as do those of nodes that
    are added to it."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        with ManyNodes() as nodes:
            yield nodes
    finally:
        os.environ.clear()
        os.environ.update(before)
