"""Workers on a running cluster with logical GPUs."""

from __future__ import annotations

import json
from pathlib import Path

from ray.cluster_utils import Cluster

from cluster.ray_start import patiently
from jobs.run import run
from tests.cluster.job_process import imagemill, write_prompts


def test_each_worker_is_pinned_to_its_own_gpu_of_a_running_cluster(tmp_path: Path) -> None:
    prompts = write_prompts(
        tmp_path / "prompts.parquet", [{"prompt": f"number {n}", "steps": 4} for n in range(64)]
    )
    output = tmp_path / "out"
    head = {
        "num_cpus": 4,
        "num_gpus": 2,
        "object_store_memory": 80 * 1024 * 1024,
        "include_dashboard": False,
    }
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        result = run(
            [
                f"input.path={prompts}",
                f"output.path={output}",
                "engine=simulated",
                f"cluster.address={cluster.address}",
            ]
        )
    finally:
        cluster.shutdown()
    assert result.status == 0
    stamps = (output / "workers").glob("*.json")
    pinned = sorted(json.loads(stamp.read_text())["gpus"] for stamp in stamps)
    assert pinned == ["0", "1"]
    assert imagemill("verify", str(output))[0] == 0
