"""A job on a cluster without nodes, which Ray's autoscaler grows for it and shrinks behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.closing import Folder, prove
from tests.cluster.autoscaled_nodes import AutoscaledNodes
from tests.cluster.job_process import (
    JobProcess,
    commit_count,
    imagemill,
    images_by_id,
    wait_until,
    write_prompts,
)

ROWS = 320
MOST = 8
GROWN_S = 240.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[AutoscaledNodes]:
    with AutoscaledNodes(most=MOST) as cluster:
        cluster.await_head()
        yield cluster


def job_words(cluster: AutoscaledNodes, folder: Path) -> tuple[str, ...]:
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    return (
        f"input.path={write_prompts(folder / 'prompts.parquet', rows)}",
        f"output.path={folder / 'out'}",
        f"cluster.address={cluster.address}",
        "cluster.autoscaled=true",
        "cluster.gpus_per_worker=1",
        "cluster.lease_s=300",
        "engine=simulated",
        "engine.simulated_speed=8",
        "input.shard_rows=8",
        "job.commit_seconds=1",
        "pricing.price_per_hour=3.6",
    )


def hold_still(cluster: AutoscaledNodes, job: JobProcess, count: int) -> None:
    """Wait for so many workers, each stopped when it is seen: the job lasts until all are there."""

    def seen() -> bool:
        for worker in cluster.workers():
            worker.suspend()
        return len(cluster.workers()) >= count

    job.wait_until(seen, f"{count} workers", timeout_s=GROWN_S)


def go_on(cluster: AutoscaledNodes) -> None:
    for worker in cluster.workers():
        worker.resume()


def test_a_job_grows_from_no_node_to_eight_has_a_lost_one_replaced_and_leaves_none(
    cluster: AutoscaledNodes, tmp_path: Path
) -> None:
    """The one that is lost is the first, which has committed something."""
    output = tmp_path / "out"
    assert cluster.nodes() == []
    words = [*job_words(cluster, tmp_path), f"cluster.max_workers={MOST}"]
    # a Ray that an earlier test started in this process leaves its own way there
    job = JobProcess("run", *words, environment={"RAY_AUTH_MODE": "disabled"})
    job.wait_until(lambda: commit_count(output) > 0, "a commit", timeout_s=GROWN_S)
    hold_still(cluster, job, MOST)
    grown = cluster.nodes()
    assert len(grown) == MOST
    cluster.kill(cluster.node_of(min(cluster.workers(), key=psutil.Process.create_time)))
    hold_still(cluster, job, MOST)
    assert len(set(cluster.nodes()) - set(grown)) == 1
    go_on(cluster)
    assert job.finish() == 0, job.output
    assert " was lost with its node: replaced\n" in job.output
    assert (
        "workers: 0 at work, 8 waiting for an autoscaler to add machines (each needs 1 CPU and 1 "
        "GPU); 8 wanted: cluster.max_workers; without any the run ends after 30 min 00 s "
        "(cluster.start_timeout_s)\n" in job.output
    )
    wait_until(lambda: not cluster.nodes(), "no node is left")
    _assert_closed(output, tmp_path)


def _assert_closed(output: Path, folder: Path) -> None:
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert len(images_by_id(output)) == ROWS
    told = folder / "cost.json"
    status, text = imagemill("cost", str(output), "--format", "json", "--out", str(told))
    assert status == 0, text
    proof = prove(Folder(output), json.loads(told.read_text()))
    assert (proof.workers, proof.problems) == (MOST + 1, [])
