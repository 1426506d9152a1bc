"""The store itself goes away, or has no room left."""

from __future__ import annotations

import threading

from tests.chaos.fault import fault
from tests.chaos.scene import Scene

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
