"""Ray's processes on a machine where they come up too slowly."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import ray

from cluster.ray_session import ray_session
from cluster.ray_start import TRIES
from conf.errors import ConfigError
from jobs.configure import compose
from tests.cluster.job_process import title

TOO_SLOW = "The current node timed out during startup"


@contextmanager
def frozen_raylets(count: int) -> Iterator[list[psutil.Process]]:
    """The first of the raylets that this process begins stop before they have come up."""
    frozen: list[psutil.Process] = []
    over = threading.Event()

    def freeze() -> None:
        while len(frozen) < count and not over.wait(0.005):
            for child in psutil.Process().children():
                if "/raylet/raylet" in title(child) and child not in frozen:
                    child.suspend()
                    frozen.append(child)

    watcher = threading.Thread(target=freeze)
    watcher.start()
    try:
        yield frozen
    finally:
        over.set()
        watcher.join()


# of the processes of the try that failed, whose handles Ray lets go without a wait
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ray_that_comes_up_too_slowly_is_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, "imagemill"),
        frozen_raylets(1) as frozen,
        ray_session(compose(["input.path=x", "output.path=y"])),
    ):
        assert ray.is_initialized()
        (left,) = frozen
        assert not left.is_running()
        raylets = [one for one in psutil.Process().children() if "/raylet/" in title(one)]
        assert len(raylets) == 1
    (said,) = caplog.messages
    assert said.startswith(f"Ray did not start: {TOO_SLOW}")
    assert said.endswith("; it is tried 2 more times")


def test_a_ray_that_never_starts_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def too_slow(*_: object, **__: object) -> None:
        tries.append(1)
        raise Exception(TOO_SLOW)  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(ray, "init", too_slow)
    with (
        caplog.at_level(logging.WARNING, "imagemill"),
        pytest.raises(ConfigError) as refused,
        ray_session(compose(["input.path=x", "output.path=y"])),
    ):
        raise AssertionError("no session")
    assert str(refused.value) == (
        f"Ray did not start on this machine: {TOO_SLOW}; nothing was started. Try again when the "
        "machine has less to do, or give the cluster.address of a cluster that runs"
    )
    assert caplog.messages == [
        f"Ray did not start: {TOO_SLOW}; it is tried 2 more times",
        f"Ray did not start: {TOO_SLOW}; it is tried once more",
    ]
    assert len(tries) == TRIES
