"""Machines that go away, with and without notice, and machines that come."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.fault import fault
from tests.chaos.scene import Scene
from tests.chaos.stage import cluster, environment
from tests.cluster.many_nodes import ManyNodes

NOTICE_S = 10
_SLOW = ("engine.simulated_speed=0.2", f"cluster.preemption_notice_s={NOTICE_S}")


@contextmanager
def own_cluster(scene: Scene) -> Iterator[ManyNodes]:
    """A cluster for this scene alone, whose nodes may be taken away; later runs go to the shared
    one."""
    shared = scene.address
    with cluster(environment(scene.store, scene.proxy)) as nodes:
        scene.address = nodes.address
        yield nodes
    scene.address = shared


@fault
def node_killed(scene: Scene) -> None:
    """A node with a worker is gone from one moment to the next, its commit on its way."""
    with own_cluster(scene) as nodes:
        nodes.add_node(cpus=1)
        lost = nodes.add_node(cpus=1)
        scene.put_rows(scene.more_rows(96))
        job = scene.run("cluster.workers=2")
        barrier = scene.hold("PUT", "out/commits/", times=2)
        scene.await_process(lambda: nodes.workers(lost))
        barrier.caught()
        nodes.remove_node(lost)
        barrier.forward()
        scene.story.append("node killed")
        scene.ends(job, 0, 3)


@fault
def node_drained_with_notice(scene: Scene) -> None:
    """A node is drained with 10 s of notice, as a spot machine is; its worker commits and leaves,
    another goes on elsewhere."""
    with own_cluster(scene) as nodes:
        nodes.add_node(cpus=1)
        going = nodes.add_node(cpus=1)
        scene.put_rows(scene.more_rows(96))
        job = scene.run("cluster.workers=2", *_SLOW)
        scene.await_landed("PUT", "out/commits/", 2)
        leaving = nodes.workers(going)
        nodes.drain_node(going, notice_s=NOTICE_S)
        scene.await_gone(leaving)
        nodes.remove_node(going)
        scene.story.append("node drained")
        scene.ends(job, 0)


@fault
def node_added_in_the_middle(scene: Scene) -> None:
    """A node joins while the job runs, and the node that began is killed."""
    with own_cluster(scene) as nodes:
        first = nodes.add_node(cpus=1)
        scene.put_rows(scene.more_rows(96))
        job = scene.run("cluster.workers=null", *_SLOW)
        scene.await_landed("PUT", "out/commits/", 2)
        second = nodes.add_node(cpus=1)
        scene.await_process(lambda: nodes.workers(second))
        nodes.remove_node(first)
        scene.story.append("node added, the first killed")
        scene.ends(job, 0, 3)


@fault
def worker_told_to_leave(scene: Scene) -> None:
    """SIGTERM of a worker with 10 s of notice: it commits what is finished and gives its shards
    back; another goes on."""
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run(*_SLOW)
    worker = scene.client_of(barrier.caught())
    worker.send_signal(signal.SIGTERM)
    barrier.forward()
    scene.await_gone([worker])
    scene.story.append("worker left")
    scene.ends(job, 0)
