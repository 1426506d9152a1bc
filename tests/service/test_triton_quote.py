"""Quotes of jobs through a real tritonserver: what its time costs, shared or the job's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from tests.cluster.job_process import write_prompts
from tests.scripted_triton import MODEL, SIZE, write_repository
from tests.triton_server import TritonServer

ROWS = 60
_IMAGE_S = 0.001
"""What the scripted model says of each image, however long it took."""


@pytest.fixture(scope="module")
def server(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Two instances of the model make images at a time."""
    folder = tmp_path_factory.mktemp("quote")
    repository = write_repository(folder / "models")
    config = repository / MODEL / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 2"))
    with TritonServer(folder, repository) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def words(url: str, tmp_path: Path, *more: str) -> list[str]:
    rows: list[dict[str, object]] = [{"prompt": "wait 0.004"}] * ROWS
    return [
        "engine=triton",
        f"triton.url={url}",
        f"triton.model={MODEL}",
        f"sampling.width={SIZE}",
        f"sampling.height={SIZE}",
        f"input.path={write_prompts(tmp_path / 'prompts.parquet', rows)}",
        f"output.path={tmp_path / 'out'}",
        "pricing.price_per_hour=3.6",
        *more,
    ]


def quoted(
    capsys: pytest.CaptureFixture[str], server: TritonServer, tmp_path: Path, *more: str
) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["quote", "--json", *words(f"grpc://{server.grpc}", tmp_path, *more)]) == 0
    assert not (tmp_path / "out").exists()
    return dict(json.loads(capsys.readouterr().out))


def test_of_servers_that_others_use_the_device_time_is_quoted_whatever_the_wait(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = quoted(capsys, server, tmp_path)
    (offer,) = found["offers"]
    assert found["measured"]["device"] == f"grpc://{server.grpc}"
    assert 2 <= found["measured"]["tried"] <= ROWS
    assert offer["paid_seconds"]["middle"] == pytest.approx(ROWS * _IMAGE_S)
    assert float(offer["cost"]["middle"]) == pytest.approx(ROWS * _IMAGE_S / 1000)
    # four milliseconds an image, two at a time
    assert offer["wall_seconds"]["middle"] > ROWS * 0.004 / 2
    assert "(triton.owned=false)" in found["notes"][-1]


def test_of_servers_of_the_jobs_own_the_devices_are_quoted_as_long_as_the_worker_lives(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = quoted(capsys, server, tmp_path, "triton.owned=true")
    (offer,) = found["offers"]
    paid_s = 2 * offer["wall_seconds"]["middle"]
    assert offer["server_devices"] == 2
    assert offer["paid_seconds"]["middle"] == pytest.approx(paid_s)
    assert float(offer["cost"]["middle"]) == pytest.approx(paid_s / 1000)
    assert "(triton.owned=true)" in found["notes"][-1]


def test_a_quote_through_servers_says_whom_it_asked(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["quote", *words(f"grpc://{server.grpc}", tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f" through grpc://{server.grpc}, starting up " in said
    assert " of one like theirs" in said
    assert " on 2 devices of servers, 60 ms paid" in said
    assert "this machine" not in said


def refusal(capsys: pytest.CaptureFixture[str], *asked: str) -> str:
    capsys.readouterr()
    assert main(["quote", *asked]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_rates_of_servers_are_not_remembered(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, "--remembered", *words(f"grpc://{server.grpc}", tmp_path))
    assert (
        "--remembered is for engines of this machine: how fast Triton servers were is not "
        "remembered, since it depends on who else asks them; leave it out to try a few rows" in said
    )


def test_a_quote_of_servers_that_are_away_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, *words("grpc://127.0.0.1:9", tmp_path))
    assert "no Triton server answers: grpc://127.0.0.1:9: " in said
