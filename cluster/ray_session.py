"""The connection to Ray, and what the connected cluster gives to a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from conf.errors import ConfigError
from conf.schema import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the cluster gives and a worker takes."""

    workers: int
    gpus_per_worker: float
    threads: int


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
    try:
        if cluster.address == "local":
            cores = max(os.cpu_count() or 1, (cluster.workers or 1))
            ray.init(
                "local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=100 * 1024 * 1024,
                **quiet,
            )
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


def resources(config: RunConfig) -> Resources:
    """Size the crew by the connected cluster."""
    total = ray.cluster_resources()
    gpus, cores = float(total.get("GPU", 0)), int(total.get("CPU", 1))
    wanted = config.cluster.gpus_per_worker
    per_worker = (1.0 if gpus else 0.0) if wanted is None else wanted
    if per_worker > gpus:
        raise ConfigError(
            f"cluster.gpus_per_worker is {per_worker:g}; the cluster has {gpus:g} GPUs"
        )
    fitting = int(gpus / per_worker) if per_worker else 1
    workers = config.cluster.workers or max(1, fitting)
    return Resources(workers=workers, gpus_per_worker=per_worker, threads=max(1, cores // workers))
