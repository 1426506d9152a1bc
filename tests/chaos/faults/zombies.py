"""What comes too late: writes and workers of an epoch after which another was opened."""

from __future__ import annotations

import re

from tests.chaos.fault import fault
from tests.chaos.faults.workers import SEALS
from tests.chaos.rules import Asked, Hold
from tests.chaos.scene import Scene

_ATTEMPT = re.compile(r"(\d{8})(?:/|-)(\d{6})")


def await_next_epoch(scene: Scene, late: Asked) -> None:
    """Wait until the epoch after that of a late commit or upload was opened."""
    found = _ATTEMPT.search(late.key)
    assert found, late.key
    scene.await_landed("PUT", f"out/leases/.*{found[1]}/{int(found[2]) + 1:06d}")


def arrive_late(scene: Scene, barrier: Hold, *, counts: bool) -> None:
    """Kill the worker whose request is held, let another take over, then let the request go on."""
    job = scene.run()
    late = barrier.caught()
    scene.kill_client(late)
    scene.story.append("worker killed")
    await_next_epoch(scene, late)
    barrier.forward()
    scene.await_landed("PUT", f"{re.escape(late.key.removeprefix(scene.name + '/'))}$")
    if not counts:
        scene.fenced.append(late.key.removeprefix(f"{scene.name}/out/"))
    scene.ends(job, 0)


@fault
def commit_lands_after_the_next_opening(scene: Scene) -> None:
    """A commit is on its way so long that another worker opens the next epoch; then it lands."""
    arrive_late(scene, scene.hold("PUT", "out/commits/"), counts=False)


@fault
def upload_lands_after_the_next_opening(scene: Scene) -> None:
    """An image is on its way so long that another worker opens the next epoch; then it lands."""
    arrive_late(scene, scene.hold("PUT", "out/images/"), counts=True)


@fault
def opening_arrives_after_another_won_its_epoch(scene: Scene) -> None:
    """An opening is on its way so long that another worker opens the same epoch; it is refused."""
    _refused(scene, scene.hold("PUT", "out/leases/"))


@fault
def seal_arrives_after_another_opened_its_epoch(scene: Scene) -> None:
    """A seal is on its way so long that another worker opens its epoch for work; it is refused."""
    _refused(scene, scene.hold("PUT", "out/leases/", body=SEALS))


def _refused(scene: Scene, barrier: Hold) -> None:
    job = scene.run()
    late = barrier.caught()
    scene.kill_client(late)
    scene.story.append("worker killed")
    key = late.key.removeprefix(f"{scene.name}/")
    scene.await_landed("PUT", f"{re.escape(key)}$")
    barrier.forward()
    scene.await_status("PUT", 412, key=f"{re.escape(key)}$")
    scene.ends(job, 0)


@fault
def worker_frozen_past_its_lease(scene: Scene) -> None:
    """A worker is stopped (SIGSTOP) and stays silent; its lease runs out, another takes over."""
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run()
    late = barrier.caught()
    scene.client_of(late).suspend()
    scene.story.append("worker frozen")
    await_next_epoch(scene, late)
    barrier.forward()
    scene.fenced.append(late.key.removeprefix(f"{scene.name}/out/"))
    scene.ends(job, 0)


@fault
def worker_and_driver_frozen_while_another_run_finishes(scene: Scene) -> None:
    """Worker and driver are stopped (SIGSTOP) with a commit on its way; a second run finishes the
    job; then the commit lands and both go on."""
    scene.own_ray()
    scene.outlived = True
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run()
    late = barrier.caught()
    worker = scene.client_of(late)
    worker.suspend()
    job.process.suspend()
    scene.story.append("driver and worker frozen")
    scene.ends(scene.resume(), 0)
    barrier.forward()
    scene.fenced.append(late.key.removeprefix(f"{scene.name}/out/"))
    worker.resume()
    job.process.resume()
    scene.ends(job, 0, 3)
