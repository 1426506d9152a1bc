"""Servers that tests of several tiers share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.seaweedfs import FULL, SeaweedFS


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
