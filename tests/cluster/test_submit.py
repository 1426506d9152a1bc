"""Runs that are sent to a Ray cluster and go on without whoever sent them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import main
from tests.cluster.job_process import imagemill, wait_until, write_prompts
from tests.cluster.many_nodes import ManyNodes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ManyNodes]:
    """One whose jobs find this very ``imagemill``: they are command lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("PYTHONPATH", str(ROOT))
        with ManyNodes(dashboard=True) as cluster:
            cluster.add_node(cpus=1)
            yield cluster


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"a picture of number {n}", "steps": 4} for n in range(8)]
    return write_prompts(tmp_path / "prompts.parquet", rows)


def test_a_submitted_run_goes_on_alone_and_is_followed_by_its_name_and_its_output(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    given = (f"input.path={prompts}", f"output.path={output}", "engine=simulated")
    status, text = imagemill("submit", *given, "--to", cluster.dashboard)
    assert status == 0, text
    found = re.search(r"submitted  (imagemill-out-[0-9a-f]{6}) to ", text)
    assert found, text
    assert f"status     imagemill status {output}" in text
    wait_until((output / "manifest.json").exists, "the job on the cluster ends")
    status, text = imagemill("logs", found[1], "--to", cluster.dashboard, "--follow")
    assert status == 0, text
    assert "8 committed, 0 quarantined, 0 pending" in text
    assert text.endswith(f"{found[1]}: succeeded\n")
    status, text = imagemill("verify", str(output))
    assert status == 0, text


def test_a_submitted_run_that_is_cancelled_is_resumed_by_another_submission(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "slow"
    slow = ("engine=simulated", "engine.simulated_speed=0.05", "job.commit_seconds=0.1")
    given = (f"input.path={prompts}", f"output.path={output}", *slow)
    status, text = imagemill("submit", *given, "--to", cluster.dashboard)
    assert status == 0, text
    wait_until(lambda: any(output.glob("leases/*/*/*.json")), "the job holds a lease")
    status, text = imagemill("cancel", str(output))
    assert status == 0, text
    wait_until(lambda: any(output.glob("ends/*.json")), "the run ends")
    status, text = imagemill(
        "submit", "--resume", str(output), "--to", cluster.dashboard, "--follow"
    )
    assert "imagemill resume" in text
    assert status == 0, text
    assert "8 committed, 0 quarantined, 0 pending" in text


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is refused says."""
    capsys.readouterr()
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_a_job_that_is_not_there_and_a_server_that_is_not_there_are_told_apart(
    cluster: ManyNodes, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "logs", "imagemill-nothing", "--to", cluster.dashboard)
    assert f"{cluster.dashboard} knows no job 'imagemill-nothing'" in text
    text = said(capsys, "logs", "any", "--to", "http://127.0.0.1:9")
    assert "no job server of Ray answers at http://127.0.0.1:9" in text
    text = said(capsys, "logs", "any", "--to", "head:8265")
    assert "--to head:8265 is no job server; expected the URL of the head's dashboard" in text


def test_what_means_another_folder_on_the_cluster_is_not_sent(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, name in (
        ((f"input.path={prompts}", "output.path=out"), "output.path=out"),
        (("input.path=in.parquet", "output.path=s3://b/out"), "input.path=in.parquet"),
        ((f"input.path={prompts}", "output.path=/o", "model=./mine"), "model=./mine"),
    ):
        text = said(capsys, "submit", *given, "--to", "http://127.0.0.1:9")
        assert f"{name} is relative to a folder of this machine" in text, text
