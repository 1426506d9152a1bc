"""Where the next workers go: a pure choice among nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.nodes import Node, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A worker of ours on a node, None: on one still to come. ``started``: what it takes is no
    longer free."""

    node_id: str | None
    started: bool


def choose_nodes(
    nodes: Iterable[Node],
    ours: Iterable[Placed],
    *,
    shape: Shape,
    wanted: int,
    per_node: int | None,
    lost_on: Mapping[str, int],
    vacated: str | None,
) -> list[str]:
    """The nodes for up to ``wanted`` workers more, one entry a worker.

    Nodes on which fewer workers were lost come first, then those with fewer of ours. What a worker
    takes that has not started yet may be free still in Ray's eyes, so it is taken off.

    Args:
        per_node: the most workers of ours on a node; None: as many as fit.
        lost_on: how many of ours were lost on each node.
        vacated: the node that one of ours has just left; its place counts as free.
    """
    ours = list(ours)
    count = Counter(placed.node_id for placed in ours)
    room = room_on(nodes, ours, shape=shape, per_node=per_node, vacated=vacated)
    chosen: list[str] = []
    while len(chosen) < wanted and (open_nodes := [i for i, free in room.items() if free > 0]):
        best = min(open_nodes, key=lambda i: (lost_on.get(i, 0), count[i]))
        room[best] -= 1
        count[best] += 1
        chosen.append(best)
    return chosen


def room_on(
    nodes: Iterable[Node],
    ours: Iterable[Placed],
    *,
    shape: Shape,
    per_node: int | None,
    vacated: str | None,
) -> dict[str, int]:
    """How many workers more each node could take; see ``choose_nodes``."""
    ours = list(ours)
    count = Counter(placed.node_id for placed in ours)
    starting = Counter(placed.node_id for placed in ours if not placed.started)
    room: dict[str, int] = {}
    for node in nodes:
        free = node.room(shape) - starting[node.node_id]
        if node.node_id == vacated and not node.draining:
            free = max(free, 1)
        if per_node is not None:
            free = min(free, per_node - count[node.node_id])
        room[node.node_id] = max(0, free)
    return room
