"""Servers that tests of several tiers share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import triton_environment
from tests.cluster.job_process import end_jobs
from tests.prometheus import MISSING, program
from tests.seaweedfs import FULL, SeaweedFS
from tests.small_disk import CannotMount, small_disk


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure stays among them; what this machine remembers is none of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _no_job_outlives_its_test() -> Iterator[None]:
    """A job that a failed test left running would take the machine from the tests after it."""
    yield
    end_jobs()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A running S3 server with the bucket ``images``, for tests that leave it running."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_url(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh folder of the server, which the environment of this test leads to."""
    for name, value in seaweedfs.environment(FULL).items():
        monkeypatch.setenv(name, value)
    return f"s3://images/{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def triton() -> None:
    """A tritonserver can be started: its environment is there."""
    triton_environment.ensure()


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' tool for rules; a test without it is skipped and says how to get it."""
    found = program("promtool")
    if found is None:
        pytest.skip(MISSING.format(name="promtool"))
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with the given options, as ``size=256k``; gone after the test. Only root
    may mount: elsewhere the test is skipped."""
    with ExitStack() as mounted:

        def mount(options: str) -> Path:
            try:
                return mounted.enter_context(small_disk(tmp_path / "disk", options))
            except CannotMount as reason:
                pytest.skip(str(reason))

        yield mount
