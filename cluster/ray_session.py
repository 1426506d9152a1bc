"""The connection to Ray, and what the connected cluster gives to a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from cluster.cores import usable_cores
from cluster.nodes import Node, Shape, described, may_come, whole_nodes
from cluster.ray_start import patiently
from conf.errors import ConfigError, OptionRefused
from conf.schema import ClusterConfig, RunConfig

log = logging.getLogger("imagemill")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the cluster gives and a worker takes.

    Args:
        shape: what one worker takes, on one node.
        least: how many must start in time for the run to go on.
        most: how many there may be; None: as many as fit.
        per_node: how many there may be on one node; None: as many as fit.
        workers: how many fit at the start.
        threads: CPU threads of a worker; None: its share of the node that it lands on, for some or
            all of the nodes are still to come.
        grows: whether an autoscaler could add nodes for workers that wait.
        largest: the node with most GPUs and CPUs; None: there is none yet.
        accelerators: what GPUs the nodes have that hold a worker, as far as Ray says.
    """

    shape: Shape
    least: int
    most: int | None
    per_node: int | None
    workers: int
    threads: int | None
    grows: bool = False
    largest: Node | None = None
    accelerators: frozenset[str] = frozenset()

    @property
    def expected(self) -> int:
        """How many workers there may come to be, as far as that is known at the start."""
        return max(self.workers, self.most or 0) if self.grows else self.workers

    def threads_on(self, node: Node) -> int:
        """CPU threads of a worker on this node."""
        if self.threads is not None:
            return self.threads
        bounds = [bound for bound in (self.per_node, self.most) if bound is not None]
        return node.threads_each(self.shape, at_most=min(bounds, default=None))


@contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """Connect to the configured cluster, or start Ray here; left as found.

    Raises:
        ConfigError: the cluster cannot be reached.
    """
    cluster = config.cluster
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _told_in_the_log():
        try:
            if cluster.address == "local":
                _start_here(cluster, quiet)
            else:
                ray.init(cluster.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"cannot reach the Ray cluster at cluster.address={cluster.address}: {error}"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _told_in_the_log() -> Iterator[None]:
    """Ray prints a long paragraph for each process that died on the standard output, where ours is;
    we say who died in a line, and these are for whoever asks for more (``--verbose``)."""
    whose = ray._private.worker
    before = getattr(whose, "print_to_stdstream", None)  # no part of Ray's interface

    def tell(told: Mapping[str, Any], *_: object, **__: object) -> None:
        log.debug("ray: %s", " ".join(told["lines"]), extra={"event": "ray_told"})

    whose.print_to_stdstream = tell
    try:
        yield
    finally:
        whose.print_to_stdstream = before


def _start_here(cluster: ClusterConfig, quiet: Mapping[str, Any]) -> None:
    """Start Ray on this machine for this run alone.

    Raises:
        ConfigError: it did not come up.
    """
    wished = cluster.workers or cluster.max_workers or cluster.min_workers
    begin = partial(
        ray.init,
        "local",
        num_cpus=max(usable_cores(), wished),
        include_dashboard=False,
        object_store_memory=100 * 1024 * 1024,
        # else Ray begins a process for each core, of which a run needs one: its coordinator's
        _system_config={"prestart_worker_first_driver": False},
        **quiet,
    )
    try:
        patiently(begin)
    except Exception as error:
        raise ConfigError(
            f"Ray did not start on this machine: {error}; nothing was started. Try again when the "
            "machine has less to do, or give the cluster.address of a cluster that runs"
        ) from error


def resources(config: RunConfig) -> Resources:
    """Size the crew by the connected cluster.

    Raises:
        ConfigError: no node can ever hold a worker; what is missing.
        OptionRefused: workers without a GPU cannot do what the configuration asks.
    """
    nodes = whole_nodes()
    cluster = config.cluster
    gpus, cores = sum(node.gpus for node in nodes), int(sum(node.cpus for node in nodes))
    needs_gpu = config.model.needs_gpu and config.engine.runs_a_model
    wanted = cluster.gpus_per_worker
    triton = config.engine.name == "triton"
    takes_one = needs_gpu or (gpus > 0 and not triton)
    shape = Shape(gpus=float(takes_one) if wanted is None else wanted)
    holds = sum(node.holds(shape) for node in nodes)
    grows = cluster.autoscaled or may_come(shape)
    if not holds and not grows:
        raise _impossible(config, shape, nodes, needs_gpu=needs_gpu)
    refuse_offload(config, gpus_per_worker=shape.gpus)
    least, most = cluster.min_workers, cluster.max_workers
    if triton and config.triton.owned:
        least = most = 1
    elif cluster.workers is not None:
        least = most = cluster.workers
        if holds < most and not grows:
            least = _what_fits(most, holds, shape, nodes)
    per_node = least if most is None and not shape.gpus else None
    fitting = sum(min(node.holds(shape), per_node or node.holds(shape)) for node in nodes)
    workers = max(1, fitting if most is None else min(fitting, most))
    return Resources(
        shape=shape,
        least=least,
        most=most,
        per_node=per_node,
        workers=workers,
        threads=None if grows else max(1, cores // workers),
        grows=grows,
        largest=_largest(nodes),
        accelerators=frozenset(
            node.accelerator for node in nodes if node.accelerator and node.holds(shape)
        ),
    )


def refuse_offload(config: RunConfig, *, gpus_per_worker: float) -> None:
    """Refuse to keep weights out of a GPU that no worker gets.

    Raises:
        OptionRefused: ``engine.offload`` is not off.
    """
    engine = config.engine
    if engine.offload != "off" and engine.runs_a_model and not gpus_per_worker:
        raise OptionRefused(
            f"engine.offload={engine.offload} keeps weights out of a GPU's memory, and no worker "
            "gets a GPU; nothing was started; give engine.offload=off, or workers with a GPU "
            "(cluster.gpus_per_worker)"
        )


def _largest(nodes: tuple[Node, ...]) -> Node | None:
    return max(nodes, key=lambda node: (node.gpus, node.cpus), default=None)


def _what_fits(wished: int, holds: int, shape: Shape, nodes: tuple[Node, ...]) -> int:
    """What the cluster can hold of ``cluster.workers``; said once."""
    log.warning(
        "of cluster.workers=%d the cluster can hold %d: each needs %s on one node; there are %s",
        wished,
        holds,
        shape,
        described(nodes, free=False),
        extra={"event": "fewer_workers"},
    )
    return holds


def _impossible(
    config: RunConfig, shape: Shape, nodes: tuple[Node, ...], *, needs_gpu: bool
) -> ConfigError:
    """What a worker needs and no node has."""
    there = described(nodes, free=False)
    if needs_gpu and not any(node.gpus for node in nodes):
        return ConfigError(
            f"the model {config.model.name} needs a GPU (model.needs_gpu); the cluster has none: "
            f"{there}; nothing was started; add a node with GPUs, choose another model, give "
            "model.needs_gpu=false where it is small enough for a CPU, or cluster.autoscaled=true "
            "where an autoscaler adds such nodes"
        )
    asked = f"cluster.gpus_per_worker is {shape.gpus:g}; " if shape.gpus else ""
    largest = _largest(nodes)
    has = f"{largest.cpus:g} CPU and {largest.gpus:g} GPU" if largest else "nothing"
    return ConfigError(
        f"{asked}a worker needs {shape} on one node; the largest node has {has}, the cluster "
        f"{there}; nothing was started; add a node that has it, change cluster.gpus_per_worker, or "
        "give cluster.autoscaled=true where an autoscaler adds such nodes"
    )
