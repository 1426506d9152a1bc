"""A store that answers badly: errors, lost replies, repeated packets, slowness."""

from __future__ import annotations

from tests.chaos.fault import fault
from tests.chaos.faults.workers import SEALS, STARTS
from tests.chaos.rules import Answer, Delay, Duplicate, LoseReply, LoseRequest
from tests.chaos.scene import Scene


@fault
def burst_of_500(scene: Scene) -> None:
    """A third of all requests is answered 500 InternalError."""
    scene.rule(Answer(status=500, code="InternalError"), "*", "out/", share=0.33)
    scene.ends(scene.run(), 0, 3)


@fault
def burst_of_503_slow_down(scene: Scene) -> None:
    """A third of all requests is answered 503 SlowDown."""
    scene.rule(Answer(status=503, code="SlowDown"), "*", "out/", share=0.33)
    scene.ends(scene.run(), 0, 3)


@fault
def connections_reset(scene: Scene) -> None:
    """A fifth of all requests never arrives: the connection is reset."""
    scene.rule(LoseRequest(), "*", "out/", share=0.2)
    scene.ends(scene.run(), 0, 3)


@fault
def replies_to_commits_lost(scene: Scene) -> None:
    """The replies to the first commits are lost, also when they are tried again."""
    scene.rule(LoseReply(), "PUT", "out/commits/", times=12)
    scene.ends(scene.run(), 0)


@fault
def commits_unknown_and_unreadable(scene: Scene) -> None:
    """The replies to a commit are lost and the commit cannot be read again for a while: whether it
    landed is unknown, so that its shard is given back."""
    scene.rule(LoseReply(), "PUT", "out/commits/", times=6)
    for method in ("GET", "HEAD"):
        scene.rule(LoseRequest(), method, "out/commits/", times=30)
    scene.ends(scene.run("storage.patience_s=2"), 0, 3)


@fault
def replies_to_openings_lost(scene: Scene) -> None:
    """The replies to the first openings are lost, also when they are tried again."""
    scene.rule(LoseReply(), "PUT", "out/leases/", body=STARTS, times=12)
    scene.ends(scene.run(), 0)


@fault
def replies_to_seals_lost(scene: Scene) -> None:
    """The replies to the first seals are lost, also when they are tried again."""
    scene.rule(LoseReply(), "PUT", "out/leases/", body=SEALS, times=12)
    scene.ends(scene.run(), 0)


@fault
def replies_to_images_lost(scene: Scene) -> None:
    """The replies to the first uploads are lost, also when they are tried again."""
    scene.rule(LoseReply(), "PUT", "out/images/", times=24)
    scene.ends(scene.run(), 0)


@fault
def every_write_arrives_twice(scene: Scene) -> None:
    """Every PUT arrives twice, and the second answer is the one that comes back."""
    scene.rule(Duplicate(), "PUT", "out/")
    scene.ends(scene.run(), 0)


@fault
def slow_store(scene: Scene) -> None:
    """Every request takes a tenth of a second longer."""
    scene.rule(Delay(seconds=0.1), "*", "out/")
    scene.ends(scene.run(), 0)


@fault
def write_stalls_past_the_lease(scene: Scene) -> None:
    """A commit stalls in the network for longer than a lease lasts; its worker is alive and keeps
    it."""
    scene.rule(Delay(seconds=6.0), "PUT", "out/commits/", times=1)
    scene.ends(scene.run(), 0)


@fault
def write_rights_withdrawn(scene: Scene) -> None:
    """After the first commit every write is answered 403; the run ends with status 3; the rights
    come back and the job is resumed."""
    job = scene.run()
    scene.await_landed("PUT", "out/commits/")
    scene.rule(Answer(status=403, code="AccessDenied"), "PUT", "out/")
    scene.ends(job, 3)
