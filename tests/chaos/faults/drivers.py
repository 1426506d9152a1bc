"""The driver, the coordinator and the whole cluster go away; several drivers come at once."""

from __future__ import annotations

from tests.chaos.fault import fault
from tests.chaos.rules import LoseReply
from tests.chaos.scene import Scene


@fault
def coordinator_killed(scene: Scene) -> None:
    """``kill -9`` of the coordinator: the run ends with status 3 and the job is resumed."""
    scene.own_ray()
    scene.put_rows(scene.more_rows(128))
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run("engine.simulated_speed=0.3")
    barrier.caught()
    job.coordinator().kill()
    barrier.forward()
    scene.story.append("coordinator killed")
    scene.ends(job, 3)


@fault
def driver_killed_in_the_middle(scene: Scene) -> None:
    """``kill -9`` of the driver while a commit is on its way; the job is resumed."""
    scene.own_ray()
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run()
    barrier.caught()
    job.kill_alone()
    barrier.forward()
    scene.killed("driver")


@fault
def driver_killed_while_it_writes_the_plan(scene: Scene) -> None:
    """``kill -9`` of the driver between job.json and the plan; the resumed job plans anew."""
    barrier = scene.hold("PUT", "out/plan/")
    job = scene.run()
    barrier.caught()
    job.kill_alone()
    barrier.drop()
    scene.killed("driver")


@fault
def driver_killed_before_the_manifest(scene: Scene) -> None:
    """``kill -9`` of the driver when every shard is sealed and the manifest is not written."""
    barrier = scene.hold("PUT", "out/manifests/")
    job = scene.run()
    barrier.caught()
    job.kill_alone()
    barrier.drop()
    scene.killed("driver")


@fault
def driver_killed_and_its_manifest_lands(scene: Scene) -> None:
    """``kill -9`` of the driver while the manifest is on its way; it arrives and stands."""
    barrier = scene.hold("PUT", "out/manifests/")
    job = scene.run()
    barrier.caught()
    job.kill_alone()
    barrier.forward()
    scene.killed("driver")
    scene.await_landed("PUT", "out/manifests/")


@fault
def whole_cluster_killed_twice(scene: Scene) -> None:
    """The whole cluster is killed at its first commit, resumed, and killed at its next seal."""
    scene.own_ray()
    for key, body in (("out/commits/", ""), ("out/leases/", '"sealed":true')):
        barrier = scene.hold("PUT", key, body=body)
        job = scene.resume() if scene.story else scene.run()
        barrier.caught()
        job.kill_all()
        barrier.forward()
        scene.killed("cluster")


@fault
def resumed_with_another_number_of_workers(scene: Scene) -> None:
    """A job that was begun with one worker is killed and goes on with three."""
    scene.own_ray()
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run()
    barrier.caught()
    job.kill_all()
    barrier.drop()
    scene.killed("cluster")
    scene.ends(scene.resume("cluster.workers=3"), 0)


@fault
def two_drivers_at_once(scene: Scene) -> None:
    """A second driver resumes the job while the first is at work."""
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run()
    barrier.caught()
    scene.outlived = True
    second = scene.resume()
    scene.story.append("both at work")
    scene.ends(second, 0, 2, 3)
    barrier.forward()
    scene.ends(job, 0, 3)


@fault
def replies_to_claim_and_manifest_lost(scene: Scene) -> None:
    """The replies to job.json, plan, run record and manifest are lost: they landed, nobody said
    so."""
    for key in ("job.json", "plan/", "runs/", "manifests/"):
        scene.rule(LoseReply(), "PUT", f"out/{key}", times=3)
    scene.ends(scene.run(), 0)


@fault
def gc_beside_a_running_job(scene: Scene) -> None:
    """``imagemill gc --delete`` runs while images are uploaded and not yet committed."""
    barrier = scene.hold("PUT", "out/commits/")
    job = scene.run()
    barrier.caught()
    scene.ends(scene.command("gc", scene.output, "--delete"), 0)
    barrier.forward()
    scene.ends(job, 0)
