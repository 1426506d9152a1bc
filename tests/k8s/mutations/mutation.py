"""A mutation, and the places of a RayJob where most of them happen."""

from __future__ import annotations

from tests.k8s.rendered import Change, put

Mutation = tuple[str, str, str, list[Change]]
"""The rule that must see it, what it is, the overlay, and the changes."""

CLUSTER = "spec/rayClusterSpec"
HEAD = f"{CLUSTER}/headGroupSpec"
HEAD_POD = f"{HEAD}/template/spec"
GROUP = f"{CLUSTER}/workerGroupSpecs/0"
POD = f"{GROUP}/template/spec"
MAIN = f"{POD}/containers/0"


def job(path: str, value: object) -> Change:
    """Set something of the RayJob."""
    return put("RayJob", path, value)
