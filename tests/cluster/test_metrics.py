"""Metrics of a real run, read where Ray offers them to Prometheus."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.metrics import HISTOGRAM, RUN_SERIES, WORKER_SERIES
from tests.cluster.job_process import JobProcess, wait_until, write_prompts
from tests.cluster.many_nodes import ManyNodes

ROWS = 200


@pytest.fixture
def cluster() -> Iterator[ManyNodes]:
    with ManyNodes(metrics_every_s=0.5) as cluster:
        yield cluster


def test_every_series_of_a_run_reaches_prometheus_with_the_jobs_labels(
    cluster: ManyNodes, tmp_path: Path
) -> None:
    cluster.add_node(cpus=1)
    rows = [{"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)]
    job = JobProcess(
        "run",
        f"input.path={write_prompts(tmp_path / 'prompts.parquet', rows)}",
        f"output.path={tmp_path / 'out'}",
        "engine=simulated",
        "job.commit_images=4",
        "job.commit_seconds=0.2",
        "job.project=shop",
        "budget.max_cost=40",
        "cluster.heartbeat_s=0.2",
        f"cluster.address={cluster.address}",
    )
    try:
        wanted = {
            f"{s.exported}_bucket" if s.kind == HISTOGRAM else s.exported
            for s in (*RUN_SERIES, *WORKER_SERIES)
        }
        seen: dict[str, str] = {}

        def all_seen() -> bool:
            for address in cluster.metrics_addresses():
                seen.update(_scrape(address))
            return wanted <= seen.keys()

        wait_until(all_seen, f"missing {sorted(wanted - seen.keys())}")
        for name in wanted:
            assert 'job="out"' in seen[name] and 'project="shop"' in seen[name], seen[name]
        assert 'currency="USD"' in seen["ray_imagemill_budget_left"]
    finally:
        job.send(signal.SIGINT)
        job.finish()


def _scrape(address: str) -> dict[str, str]:
    """The last line of each of our series, by name."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ray_imagemill_")]
    return {re.split(r"[{ ]", line, maxsplit=1)[0]: line for line in lines}
