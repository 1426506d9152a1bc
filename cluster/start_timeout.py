"""How long a run waits for its workers to begin: ``cluster.start_timeout_s``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema import ClusterConfig

_THERE_S = 120.0
"""On a machine that is there: Ray starts a process, and imports what it needs."""
_TO_COME_S = 1800.0
"""A GPU machine that has to come first: ten minutes are usual, where there are any to be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimeout:
    """In seconds: ``worker_s`` for a worker on a node that is there, before another one is tried;
    ``crew_s`` for as many as a run needs, before it ends."""

    worker_s: float
    crew_s: float


def start_timeout(cluster: ClusterConfig, *, grows: bool) -> StartTimeout:
    """What is given counts for both. ``grows``: whether an autoscaler may add nodes."""
    given_s = cluster.start_timeout_s
    if given_s is not None:
        return StartTimeout(worker_s=given_s, crew_s=given_s)
    return StartTimeout(worker_s=_THERE_S, crew_s=_TO_COME_S if grows else _THERE_S)
