"""What a pod's preStop hook does: its workers commit and leave, and nobody is hired there again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.node import Node

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    write_prompts,
)
from tests.cluster.many_nodes import ManyNodes

ROWS = 40
JOB = (
    "engine=simulated",
    "engine.simulated_speed=2",
    "input.shard_rows=8",
    "job.commit_images=1000",
    "job.commit_seconds=1000",
    "job.max_attempts=1",
    "cluster.heartbeat_s=0.2",
    "cluster.preemption_notice_s=60",
)
"""Nothing is committed before a shard is done, and a shard that is held to have killed its worker
once has its rows quarantined: exit status 1."""


@pytest.fixture(scope="module")
def head() -> Iterator[ManyNodes]:
    with ManyNodes() as cluster:
        yield cluster


@pytest.fixture
def cluster(head: ManyNodes) -> Iterator[ManyNodes]:
    """Nothing but a head at first."""
    yield head
    head.remove_nodes()


def leave(*arguments: str) -> tuple[int, str]:
    """The hook, in a process of its own."""
    command = [sys.executable, "-m", "cluster.leave", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def started(cluster: ManyNodes, tmp_path: Path, *nodes: Node) -> tuple[JobProcess, Path]:
    """A job with a worker on each node that has made some images."""
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    prompts, output = write_prompts(tmp_path / "prompts.parquet", rows), tmp_path / "out"
    where = (f"input.path={prompts}", f"output.path={output}", f"cluster.address={cluster.address}")
    job = JobProcess("run", *where, *JOB)
    job.wait_until(lambda: all(cluster.workers(node) for node in nodes), "a worker on each node")
    job.wait_until(lambda: len(list(output.rglob("images/*/*.png"))) >= 4, "some images")
    return job, output


def test_a_node_is_left_in_order_and_gets_no_worker_again(
    cluster: ManyNodes, tmp_path: Path
) -> None:
    going, staying = cluster.add_node(), cluster.add_node()
    job, output = started(cluster, tmp_path, going, staying)
    before = commit_count(output)
    status, said = leave("--notice-s=60", f"--node-id={going.node_id}")
    assert (status, said) == (0, "")
    assert commit_count(output) > before, "what was finished is committed"
    assert cluster.workers(going) == []
    assert job.finish() == 0, job.output
    left = [line for line in job.output.splitlines() if " left: " in line]
    assert ["replaced" in line for line in left] == [False], "the one other node is full"
    assert imagemill("verify", str(output))[0] == 0
    assert len(images_by_id(output)) == ROWS


def test_a_worker_that_does_not_leave_is_not_waited_for_longer_than_its_notice(
    cluster: ManyNodes, tmp_path: Path
) -> None:
    going, staying = cluster.add_node(), cluster.add_node()
    job, output = started(cluster, tmp_path, going, staying)
    (frozen,) = cluster.workers(going)
    frozen.suspend()
    status, said = leave("--notice-s=1", f"--node-id={going.node_id}")
    assert status == 1
    assert said == "a worker had not left after 1 s; what it had committed counts\n"
    frozen.kill()
    assert job.finish() == 0, job.output
    assert imagemill("verify", str(output))[0] == 0


NOT_HEARD = """
from dataclasses import replace
from cluster.leave import leave, nodes_here
(node,) = [node for node in nodes_here() if node.node_id == "{node_id}"]
assert leave(replace(node, gcs_address="127.0.0.1:9"), notice_s=60)
"""


def test_where_ray_cannot_be_told_the_workers_are(cluster: ManyNodes, tmp_path: Path) -> None:
    going = cluster.add_node()
    job, output = started(cluster, tmp_path, going)
    before = commit_count(output)
    (worker,) = cluster.workers(going)
    code = NOT_HEARD.format(node_id=going.node_id)
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    assert worker not in cluster.workers(going)
    assert commit_count(output) > before
    assert job.finish() == 0, job.output
    assert "left: its process was told to end (SIGTERM)" in job.output


def test_where_no_node_is_there_is_nothing_to_leave() -> None:
    status, said = leave("--notice-s=1", "--node-id=none")
    assert (status, said) == (0, "no Ray node is here; nothing to leave\n")
