"""The store itself goes away, or has no room left."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

from tests.chaos.fault import fault
from tests.chaos.proxy import Proxy
from tests.chaos.scene import WAIT_S, Scene
from tests.cluster.job_process import wait_until
from tests.seaweedfs import SeaweedFS
from tests.small_disk import small_disk

_PAUSE_S = 60.0


@fault
def store_killed_and_restarted(scene: Scene) -> None:
    """``kill -9`` of SeaweedFS in the middle of the run; it comes back on the same data."""
    job = scene.run()
    scene.await_landed("PUT", "out/commits/")
    scene.store.kill()
    scene.await_unanswered(6)
    scene.store.start()
    scene.story.append("store restarted")
    scene.ends(job, 0, 3)


@fault
def store_paused_for_a_minute(scene: Scene) -> None:
    """SeaweedFS is stopped (SIGSTOP) for 60 s in the middle of the run: it takes connections and
    answers nothing."""
    job = scene.run()
    scene.await_landed("PUT", "out/commits/")
    scene.store.pause()
    threading.Event().wait(_PAUSE_S)
    scene.store.go_on()
    scene.story.append("store paused 60 s")
    scene.ends(job, 0, 3)


def fill(disk: Path) -> Path:
    """Take all the room that is left; returns the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**10):
            while file.write(bytes(size)) == size:
                pass
    return ballast


@fault
def disk_full_under_the_store(scene: Scene) -> None:
    """SeaweedFS lies on a small disk that fills up in the middle of the run; the run is stopped,
    room is made, the job is resumed."""
    disk = scene.enter(small_disk(scene.folder / "disk", "size=100m"))
    store = scene.enter(
        SeaweedFS(disk, arguments=("-volume.max=50", "-master.volumeSizeLimitMB=16"))
    )
    scene.move_to(store, scene.enter(Proxy(store.endpoint_url)))
    job = scene.run("engine.simulated_speed=0.1", "storage.patience_s=5")
    scene.await_landed("PUT", "out/commits/")
    ballast = fill(disk)
    scene.await_status("PUT", 500, 5)
    job.send(signal.SIGINT)
    scene.story.append("disk full")
    scene.ends(job, 3)
    ballast.unlink()
    wait_until(scene.takes_writes, "the store takes writes again", WAIT_S)


@fault
def local_disk_full(scene: Scene) -> None:
    """The output is a folder on a small disk that fills up in the middle of the run; the run ends
    with status 3, room is made, the job is resumed."""
    disk = scene.enter(small_disk(scene.folder / "disk", "size=8m"))
    scene.move_to_folder(disk / "out")
    job = scene.run("engine.simulated_speed=0.1")
    commits = (disk / "out").glob
    wait_until(lambda: any(commits("commits/**/*.json")), "a commit", WAIT_S)
    ballast = fill(disk)
    scene.story.append("disk full")
    scene.ends(job, 3)
    ballast.unlink()
