"""Jobs on a cluster of several nodes that come, go and are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    write_prompts,
)
from tests.cluster.many_nodes import ManyNodes

ROWS = 64
SIMULATED = (
    "engine=simulated",
    "engine.simulated_speed=2",
    "input.shard_rows=8",
    "job.commit_images=4",
    "job.commit_seconds=0.2",
    "cluster.heartbeat_s=0.2",
)
UNFORGIVING = ("job.max_attempts=1", "input.shard_rows=1")
"""A row whose shard is held to have killed its worker once is quarantined: exit status 1."""


@pytest.fixture(scope="module")
def head() -> Iterator[ManyNodes]:
    with ManyNodes() as cluster:
        yield cluster


@pytest.fixture
def cluster(head: ManyNodes) -> Iterator[ManyNodes]:
    """Nothing but a head at first."""
    yield head
    head.remove_nodes()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    return write_prompts(tmp_path / "prompts.parquet", rows)


def start(cluster: ManyNodes, prompts: Path, output: Path, *more: str) -> JobProcess:
    given = (f"input.path={prompts}", f"output.path={output}", *SIMULATED, *more)
    return JobProcess("run", *given, f"cluster.address={cluster.address}")


def assert_whole(output: Path) -> None:
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert len(images_by_id(output)) == ROWS


def wait_for_commits(job: JobProcess, output: Path, count: int) -> None:
    job.wait_until(lambda: commit_count(output) >= count, f"{count} commits")


def test_a_node_that_joins_gets_a_worker_and_one_that_dies_takes_no_row_with_it(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    """The first one's worker stands still meanwhile, so that the job lasts long enough."""
    output = tmp_path / "out"
    first = cluster.add_node()
    job = start(cluster, prompts, output, *UNFORGIVING, "cluster.lease_s=300")
    wait_for_commits(job, output, 1)
    (only,) = cluster.workers(first)
    only.suspend()
    second = cluster.add_node()
    job.wait_until(lambda: len(cluster.workers(second)) == 1, "a worker on the node that joined")
    cluster.remove_node(first)
    assert job.finish() == 0, job.output
    assert "worker r0001-w0000 was lost with its node\n" in job.output
    assert_whole(output)


def test_a_node_with_a_notice_is_left_in_order_before_it_goes(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    spot, other = cluster.add_node(), cluster.add_node()
    job = start(cluster, prompts, output, *UNFORGIVING, "cluster.preemption_notice_s=60")
    job.wait_until(lambda: len(cluster.workers(spot) + cluster.workers(other)) == 2, "two workers")
    wait_for_commits(job, output, 2)
    assert cluster.coordinators(spot) + cluster.coordinators(other) == []
    cluster.drain_node(spot, notice_s=60)
    job.wait_until(lambda: not cluster.workers(spot), "the worker leaves")
    cluster.remove_node(spot)
    assert job.finish() == 0, job.output
    assert "left: its node is being taken away" in job.output
    assert_whole(output)


def test_a_worker_that_is_still_there_when_its_notice_is_over_is_killed_and_blames_no_row(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    spot, other = cluster.add_node(), cluster.add_node()
    job = start(cluster, prompts, output, *UNFORGIVING, "cluster.preemption_notice_s=2")
    job.wait_until(lambda: all(cluster.workers(node) for node in (spot, other)), "two workers")
    wait_for_commits(job, output, 2)
    (frozen,) = cluster.workers(spot)
    frozen.suspend()
    cluster.drain_node(spot, notice_s=2)
    assert job.finish() == 0, job.output
    assert "was killed 2 s after it had been told to go\n" in job.output
    _, alive = psutil.wait_procs([frozen], timeout=60)
    assert not alive
    assert_whole(output)


def test_a_worker_that_fits_no_node_is_refused_with_what_is_missing(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    cluster.add_node(cpus=2, gpus=1)
    cluster.add_node(cpus=2, gpus=1)
    job = start(cluster, prompts, output, "cluster.gpus_per_worker=2")
    assert job.finish() == 2
    assert "a worker needs 1 CPU and 2 GPUs on one node; the largest node has 2" in job.output
    assert not (output / "job.json").exists()


def test_a_run_with_fewer_than_min_workers_ends_in_words_and_goes_on_with_fewer(
    cluster: ManyNodes, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    cluster.add_node()
    job = start(
        cluster,
        prompts,
        output,
        "engine.simulated_speed=0.2",
        "cluster.min_workers=2",
        "cluster.start_timeout_s=15",
    )
    assert job.finish() == 3, job.output
    assert "only 1 of 2 workers could start within cluster.start_timeout_s=15" in job.output
    assert "free in the cluster: 0 CPU, 0 GPU on 2 nodes; in all: 1 CPU, 0 GPU" in job.output
    assert f"imagemill resume {output}" in job.output
    assert imagemill("verify", str(output))[0] == 0
