"""Rows that do harm, and rows that are tried again."""

from __future__ import annotations

from tests.chaos.fault import fault
from tests.chaos.rules import LoseReply
from tests.chaos.scene import Scene

CRASHES, HANGS = "crash the process", "hang for ever"
"""What ``instrument/sitecustomize.py`` looks for in prompts."""
_BAD_ROW = 5
_HASTY = (
    "engine.max_batch=4",
    "job.max_attempts=2",
    "job.row_timeout_s=2",
    "job.max_quarantined=0",
)


def with_bad_row(scene: Scene, what: str) -> None:
    """16 rows of which one does harm; it is to be quarantined, alone."""
    rows = [dict(row) for row in scene.rows[:16]]
    rows[_BAD_ROW]["prompt"] = what
    scene.put_rows(rows)
    scene.wanted_status, scene.wanted_quarantined = 1, 1


@fault
def row_that_crashes_its_worker(scene: Scene) -> None:
    """A row kills the process of every worker that draws it; it is quarantined alone."""
    with_bad_row(scene, CRASHES)
    scene.ends(scene.run(*_HASTY), 1)


@fault
def row_that_hangs(scene: Scene) -> None:
    """A row never comes to an end; its worker is cut at job.row_timeout_s, the row quarantined."""
    with_bad_row(scene, HANGS)
    scene.ends(scene.run(*_HASTY), 1)


@fault
def quarantined_rows_retried_under_fault(scene: Scene) -> None:
    """A row that killed its workers is retried when the cause is mended; the worker that retries it
    is killed too, and replies to commits are lost."""
    with_bad_row(scene, CRASHES)
    scene.ends(scene.run(*_HASTY), 1)
    scene.cure_rows()
    scene.same_images = False
    scene.wanted_status, scene.wanted_quarantined = 0, 0
    barrier = scene.hold("PUT", "out/commits/")
    scene.rule(LoseReply(), "PUT", "out/commits/", times=8)
    again = scene.command("retry", scene.output, f"cluster.address={scene.address}")
    scene.kill_client(barrier.caught())
    barrier.drop()
    scene.story.append("worker killed")
    scene.ends(again, 0, 3)
