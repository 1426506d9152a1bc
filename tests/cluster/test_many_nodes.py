"""Jobs on a cluster of several nodes that come, go and are taken away."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.job_process import JobProcess, imagemill, wait_until, write_prompts
from tests.cluster.many_nodes import ManyNodes

ROWS = 32
SIMULATED = (
    "engine=simulated",
    "engine.simulated_speed=6",
    "input.shard_rows=8",
    "job.commit_images=4",
    "job.commit_seconds=0.2",
    "cluster.heartbeat_s=0.2",
)


def test_a_job_runs_on_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    prompts = write_prompts(
        tmp_path / "prompts.parquet", [{"prompt": f"number {n}", "steps": 10} for n in range(ROWS)]
    )
    output = tmp_path / "out"
    with ManyNodes() as cluster:
        nodes = [cluster.add_node(), cluster.add_node()]
        job = JobProcess(
            "run",
            f"input.path={prompts}",
            f"output.path={output}",
            *SIMULATED,
            f"cluster.address={cluster.address}",
            "cluster.workers=2",
        )
        wait_until(lambda: all(len(cluster.workers(node)) == 1 for node in nodes), "a worker each")
        assert len(cluster.coordinators()) == 1
        assert job.finish() == 0, job.output
    assert imagemill("verify", str(output))[0] == 0
