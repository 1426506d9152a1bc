"""``kill -9`` of a worker in each of its stages."""

from __future__ import annotations

from tests.chaos.fault import fault
from tests.chaos.rules import Hold
from tests.chaos.scene import Scene

SEALS = '"sealed":true'
STARTS = '"sealed":false'


def kill_while(scene: Scene, barrier: Hold, *, lands: bool, settings: tuple[str, ...] = ()) -> None:
    """Run; kill the worker whose request is held; then let the request go on, or not. The run
    replaces the worker and finishes by itself."""
    job = scene.run(*settings)
    scene.kill_client(barrier.caught())
    barrier.forward() if lands else barrier.drop()
    scene.story.append("worker killed")
    scene.ends(job, 0)


@fault
def worker_killed_while_reading(scene: Scene) -> None:
    """A worker is killed while it reads its rows: its request for the input is on its way."""
    opening = scene.hold("PUT", "out/leases/")
    job = scene.run()
    opening.caught()
    reading = scene.hold("GET", "input/")
    opening.forward()
    scene.kill_client(reading.caught())
    reading.drop()
    scene.story.append("worker killed")
    scene.ends(job, 0)


@fault
def worker_killed_while_denoising(scene: Scene) -> None:
    """A worker is killed in the middle of a batch: one row is finished, the others are not."""
    scene.put_rows(
        [{"prompt": f"number {n}", "steps": 1 if n == 0 else 150, "seed": n} for n in range(16)]
    )
    scene.same_images = False
    kill_while(scene, scene.hold("PUT", "out/images/"), lands=False)


@fault
def worker_killed_while_denoising_with_a_real_model(scene: Scene) -> None:
    """The same with the model that ships with ImageMill instead of the simulated engine."""
    scene.put_rows(
        [
            {"prompt": "a large red circle on a black background", "steps": 1 if n == 0 else 8}
            for n in range(8)
        ]
    )
    scene.same_images = False
    settings = ("engine=stepwise", "sampling.width=64", "sampling.height=64", "cluster.lease_s=20")
    kill_while(scene, scene.hold("PUT", "out/images/"), lands=False, settings=settings)


@fault
def worker_killed_while_encoding(scene: Scene) -> None:
    """A worker is killed while a thread of it encodes an image."""
    kill_while(scene, scene.hold_stage("encoding"), lands=False)


@fault
def worker_killed_while_uploading(scene: Scene) -> None:
    """A worker is killed while an image is on its way to the store, where it never arrives."""
    kill_while(scene, scene.hold("PUT", "out/images/"), lands=False)


@fault
def worker_killed_before_its_commit(scene: Scene) -> None:
    """A worker is killed between upload and commit: its commit never arrives."""
    kill_while(scene, scene.hold("PUT", "out/commits/"), lands=False)


@fault
def worker_killed_and_its_commit_lands(scene: Scene) -> None:
    """A worker is killed while its commit is on its way; the commit arrives and counts."""
    kill_while(scene, scene.hold("PUT", "out/commits/"), lands=True)


@fault
def worker_killed_before_its_seal(scene: Scene) -> None:
    """A worker is killed between the last commit of a shard and its seal, which never arrives."""
    kill_while(scene, scene.hold("PUT", "out/leases/", body=SEALS), lands=False)


@fault
def worker_killed_and_its_seal_lands(scene: Scene) -> None:
    """A worker is killed while a seal is on its way; the seal arrives, nobody was told of it."""
    kill_while(scene, scene.hold("PUT", "out/leases/", body=SEALS), lands=True)


@fault
def worker_killed_before_its_opening(scene: Scene) -> None:
    """A worker is killed while it opens an epoch; the opening arrives, nobody works under it."""
    kill_while(scene, scene.hold("PUT", "out/leases/", body=STARTS), lands=True)


@fault
def two_workers_killed_at_their_commits(scene: Scene) -> None:
    """Both workers of a job are killed, each while a commit of its own is on its way."""
    scene.put_rows(scene.more_rows(96))
    first, second = scene.hold("PUT", "out/commits/"), scene.hold("PUT", "out/commits/")
    job = scene.run("cluster.workers=2")
    scene.kill_client(first.caught())
    scene.kill_client(second.caught())
    first.forward()
    second.drop()
    scene.story.append("workers killed")
    scene.ends(job, 0)


@fault
def worker_killed_before_its_tar_is_committed(scene: Scene) -> None:
    """The same where images lie in tar files: the tar is there, its commit never arrives."""
    barrier = scene.hold("PUT", "out/commits/")
    kill_while(scene, barrier, lands=False, settings=("output.format=webdataset",))


@fault
def worker_killed_and_its_parquet_commit_lands(scene: Scene) -> None:
    """The same where images lie in Parquet files: the worker dies, its commit arrives."""
    barrier = scene.hold("PUT", "out/commits/")
    kill_while(scene, barrier, lands=True, settings=("output.format=parquet",))
