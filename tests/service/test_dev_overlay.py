"""The overlay ``dev`` with its own words: the store's command, the settings, the run's command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from k8s.lint.manifest import within
from tests.cluster.job_process import imagemill, wait_until
from tests.cluster.many_nodes import ManyNodes
from tests.k8s.rendered import rendered
from tests.seaweedfs import fetched, free_ports, weed

ROOT = Path(__file__).parents[2]
SECRET = {"AWS_ACCESS_KEY_ID": "dev", "AWS_SECRET_ACCESS_KEY": "dev-secret"}
"""What docs/operations.md has a user put into the secret."""


def settings() -> dict[str, str]:
    """The environment of the Ray pods, as far as it is meant for any machine."""
    (found,) = (m for m in rendered("overlays/dev").of_kind("ConfigMap") if "settings" in m.name)
    return {name: value for name, value in found.body["data"].items() if name != "HF_HOME"}


def run_line() -> list[str]:
    """The command of the RayJob, its input where it lies here instead of in the image."""
    (job,) = rendered("overlays/dev").of_kind("RayJob")
    words = shlex.split(job.spec["entrypoint"])
    there = "input.path=/opt/imagemill/examples/prompts.parquet"
    assert there in words
    return [f"input.path={ROOT}/examples/prompts.parquet" if w == there else w for w in words]


@contextmanager
def store(folder: Path) -> Iterator[str]:
    """The store's container without a container: its command, on free ports; where it answers."""
    (deployment,) = rendered("overlays/dev").of_kind("Deployment")
    container = within(deployment.spec, "template", "spec")["containers"][0]
    ports = free_ports()
    changed = {
        "weed": weed(),
        "-dir=/data": f"-dir={folder}",
        "-s3.port=8333": f"-s3.port={ports.s3}",
    }
    command = [changed.pop(word, word) for word in container["command"]]
    assert not changed, "the store's command has changed"
    command += [f"-master.port={ports.master}", f"-volume.port={ports.volume}"]
    command += [f"-filer.port={ports.filer}", f"-admin.port={ports.admin}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=SECRET, cwd=folder)
    try:
        path = container["readinessProbe"]["httpGet"]["path"]
        url = f"http://127.0.0.1:{ports.s3}"
        wait_until(lambda: fetched(url + path) is not None, "the store is ready")
        yield url
    finally:
        process.kill()
        process.wait()


def test_the_command_of_the_overlay_makes_its_pictures_in_the_store_of_the_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store(tmp_path) as url:
        environment: Mapping[str, str] = settings() | SECRET | {"AWS_ENDPOINT_URL": url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("IMAGEMILL_PROVIDER", "local")
        with ManyNodes() as cluster:
            for _ in range(2):
                cluster.add_node(cpus=1)
            # what KubeRay sets on every pod, and 'auto' reads
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            program, *words = run_line()
            assert program == "imagemill"
            status, text = imagemill(*words, "engine=simulated", "engine.simulated_speed=50")
        assert status == 0, text
        assert "48 rows" in text
        assert "2 workers" in text
        assert "of 2 workers" not in text, "a worker is unpriced"
        status, text = imagemill("verify", "s3://images/example")
        assert status == 0, text
