"""Stops that were asked for: Ctrl-C and cancel.

A commit is held until the driver has heard, so that there is always something left to do.
"""

from __future__ import annotations

import signal

from tests.chaos.driver import Driver
from tests.chaos.fault import fault
from tests.chaos.rules import Hold
from tests.chaos.scene import WAIT_S, Scene
from tests.cluster.job_process import wait_until


def at_work(scene: Scene) -> tuple[Driver, Hold]:
    """A job that waits for the answer to its first commit and has far more rows than it may keep
    in memory."""
    scene.put_rows(scene.more_rows(128))
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run("engine.simulated_speed=0.3")
    barrier.caught()
    return job, barrier


def interrupt(job: Driver, said: str) -> None:
    """Ctrl-C; returns when the driver has said what it does."""
    job.send(signal.SIGINT)
    wait_until(lambda: said in job.output, f"the driver says '{said}'", WAIT_S)


@fault
def ctrl_c_once(scene: Scene) -> None:
    """Ctrl-C: what is finished is committed, the run ends with status 3, the job is resumed."""
    job, barrier = at_work(scene)
    interrupt(job, "stopping: committing")
    barrier.forward()
    scene.ends(job, 3)


@fault
def ctrl_c_twice(scene: Scene) -> None:
    """Ctrl-C twice: the run stops at once with status 3, the job is resumed."""
    job, barrier = at_work(scene)
    interrupt(job, "stopping: committing")
    interrupt(job, "stopping now")
    scene.ends(job, 3)
    barrier.drop()


@fault
def cancelled_from_another_process(scene: Scene) -> None:
    """``imagemill cancel`` from elsewhere: the run ends with status 3, the job is resumed."""
    job, barrier = at_work(scene)
    scene.ends(scene.command("cancel", scene.output), 0)
    scene.await_landed("HEAD", "out/cancels/")
    barrier.forward()
    scene.ends(job, 3)
