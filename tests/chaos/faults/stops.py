"""Stops that were asked for: Ctrl-C, cancel, SIGTERM."""

from __future__ import annotations

import signal

from tests.chaos.driver import Driver
from tests.chaos.fault import fault
from tests.chaos.scene import Scene

_SLOW = "engine.simulated_speed=0.2"


def started(scene: Scene, *more: str) -> Driver:
    """A job that is at work and has made its first commit."""
    job = scene.run(_SLOW, *more)
    scene.await_landed("PUT", "out/commits/")
    return job


@fault
def ctrl_c_once(scene: Scene) -> None:
    """Ctrl-C: what is finished is committed, the run ends with status 3, the job is resumed."""
    job = started(scene)
    job.send(signal.SIGINT)
    scene.ends(job, 3)


@fault
def ctrl_c_twice(scene: Scene) -> None:
    """Ctrl-C twice: the run stops at once with status 3, the job is resumed."""
    job = started(scene)
    job.send(signal.SIGINT)
    job.send(signal.SIGINT)
    scene.ends(job, 3)


@fault
def cancelled_from_another_process(scene: Scene) -> None:
    """``imagemill cancel`` from elsewhere: the run ends with status 3, the job is resumed."""
    job = started(scene)
    scene.ends(scene.command("cancel", scene.output), 0)
    scene.ends(job, 3)
