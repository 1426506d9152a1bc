"""Which node the next worker goes to."""

from __future__ import annotations

import pytest

from cluster.hiring import Placed, choose_nodes
from cluster.nodes import Node, Shape, described

CPU = Shape(gpus=0.0)


def node(
    name: str, cpus: float = 2, gpus: float = 0, free: float | None = None, going: bool = False
) -> Node:
    left = cpus if free is None else free
    return Node(node_id=name, cpus=cpus, gpus=gpus, free_cpus=left, free_gpus=gpus, draining=going)


def chosen(
    *nodes: Node,
    wanted: int = 9,
    ours: tuple[Placed, ...] = (),
    shape: Shape = CPU,
    per_node: int | None = None,
    lost_on: dict[str, int] | None = None,
    vacated: str | None = None,
) -> list[str]:
    return choose_nodes(
        nodes,
        ours,
        shape=shape,
        wanted=wanted,
        per_node=per_node,
        lost_on=lost_on or {},
        vacated=vacated,
    )


def test_workers_are_spread_over_the_nodes_as_far_as_each_has_room() -> None:
    assert chosen(node("a"), node("b", cpus=1)) == ["a", "b", "a"]


def test_no_more_are_hired_than_wanted() -> None:
    assert chosen(node("a"), node("b"), wanted=3) == ["a", "b", "a"]
    assert chosen(node("a"), wanted=0) == []


def test_a_worker_needs_its_resources_on_one_node() -> None:
    pair = Shape(gpus=2.0)
    assert chosen(node("a", gpus=1), node("b", gpus=1), shape=pair) == []
    assert chosen(node("a", cpus=1, gpus=8), node("b", cpus=8, gpus=5), shape=pair) == [
        "a",
        "b",
        "b",
    ]


def test_a_node_that_is_being_taken_away_gets_nobody() -> None:
    assert chosen(node("a", going=True), node("b", cpus=1)) == ["b"]
    assert chosen(node("a", going=True, free=0), vacated="a") == []


def test_what_others_use_is_not_free() -> None:
    assert chosen(node("a", free=1), node("b", free=0)) == ["a"]


def test_what_a_starting_worker_will_take_is_not_free_though_it_may_look_so() -> None:
    starting = Placed(node_id="a", started=False)
    assert chosen(node("a"), ours=(starting,)) == ["a"]
    running = Placed(node_id="a", started=True)
    assert chosen(node("a"), ours=(running,)) == ["a", "a"]


def test_a_node_has_no_more_than_per_node_of_ours() -> None:
    running = Placed(node_id="a", started=True)
    assert chosen(node("a"), node("b"), ours=(running,), per_node=1) == ["b"]


def test_the_place_of_a_worker_that_just_left_is_free_though_it_may_not_look_so() -> None:
    assert chosen(node("a", free=0), vacated="a") == ["a"]


def test_a_node_on_which_fewer_workers_were_lost_comes_first() -> None:
    assert chosen(node("a"), node("b"), lost_on={"a": 1}, wanted=2) == ["b", "b"]


@pytest.mark.parametrize(
    ("gpus", "holds"), [(0.0, 4), (0.25, 4), (0.5, 4), (1.0, 2), (2.0, 1), (3.0, 0)]
)
def test_a_node_holds_as_many_workers_as_its_scarcest_resource(gpus: float, holds: int) -> None:
    assert node("a", cpus=4, gpus=2).holds(Shape(gpus=gpus)) == holds


def test_shapes_and_sums_are_said_in_words() -> None:
    assert [str(Shape(gpus=g)) for g in (0, 0.5, 1, 4)] == [
        "1 CPU",
        "1 CPU and 0.5 GPU",
        "1 CPU and 1 GPU",
        "1 CPU and 4 GPUs",
    ]
    nodes = (node("a", gpus=1, free=0), node("b", cpus=1))
    assert described(nodes, free=False) == "3 CPU, 1 GPU on 2 nodes"
    assert described(nodes[:1], free=True) == "0 CPU, 1 GPU on 1 node"
