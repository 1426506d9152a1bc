"""Metrics of real runs, read where Ray offers them, by a real Prometheus too."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.series import COUNTER, GAUGE, HISTOGRAM, RUN_SERIES, WORKER_SERIES
from k8s.monitoring.__main__ import DASHBOARDS
from tests.cluster.job_process import JobProcess, wait_until, write_prompts
from tests.cluster.many_nodes import ManyNodes
from tests.prometheus import MISSING, Prometheus, program

ROWS = 4000
NOT_HERE = {"imagemill-operations: GPUs 0"}
"""The panel of a machine that the tests do not have."""
SERIES = (*RUN_SERIES, *WORKER_SERIES)
ROOT = Path(__file__).parents[2]
TYPES = {GAUGE: "gauge", COUNTER: "counter", HISTOGRAM: "histogram"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ManyNodes]:
    with ManyNodes(metrics_every_s=1) as cluster:
        cluster.add_node(cpus=1)
        yield cluster


@contextmanager
def running(cluster: ManyNodes, folder: Path, *more: str) -> Iterator[JobProcess]:
    """A job that takes its time, stopped at the end."""
    rows: list[dict[str, object]] = [
        {"prompt": f"a picture of number {n}", "steps": 10} for n in range(ROWS)
    ]
    job = JobProcess(
        "run",
        f"input.path={write_prompts(folder / 'prompts.parquet', rows)}",
        f"output.path={folder / 'out'}",
        "engine=simulated",
        "job.commit_images=4",
        "job.commit_seconds=0.2",
        "job.project=shop",
        "budget.max_cost=40",
        "pricing.price_per_hour=3.6",
        "engine.simulated_speed=5",
        "cluster.heartbeat_s=0.2",
        f"cluster.address={cluster.address}",
        *more,
    )
    try:
        yield job
    finally:
        if job.running():
            job.send(signal.SIGINT)
        job.finish()


def test_every_series_of_a_run_is_exported_under_its_name_and_its_gauges_end_with_it(
    cluster: ManyNodes, tmp_path: Path
) -> None:
    seen: dict[str, str] = {}
    wanted = {f"{s.exported}_bucket" if s.kind == HISTOGRAM else s.exported for s in SERIES}

    def all_seen() -> bool:
        seen.update(_lines(cluster))
        missing.intersection_update(wanted - seen.keys())
        return not missing

    missing = {*wanted}
    with running(cluster, tmp_path, "job.name=cats", "cluster.lease_s=5"):
        wait_until(all_seen, f"{missing} to be exported")
        types = _types(cluster)
        assert _lost(cluster, "died") == pytest.approx(0)
        (frozen,) = cluster.workers()
        frozen.suspend()
        wait_until(lambda: _lost(cluster, "silent") >= 1, "the frozen worker to be told of")
        assert _lost(cluster, "died") == pytest.approx(0)
        wait_until(lambda: frozen not in cluster.workers() != [], "another worker in its place")
        cluster.workers()[0].kill()
        wait_until(lambda: _lost(cluster, "died") >= 1, "the dead worker to be told of")
    parts = {
        f"{s.exported}_{part}" for s in SERIES if s.kind == HISTOGRAM for part in ("sum", "count")
    }
    assert seen.keys() <= wanted | parts, "what is exported is documented"
    for one in SERIES:
        assert types[one.exported] == TYPES[one.kind]
    for name in wanted:
        assert 'job_name="cats"' in seen[name], seen[name]
        assert 'project="shop"' in seen[name], seen[name]
    assert 'currency="USD"' in seen["ray_imagemill_budget_left"]
    gauges = {one.exported for one in SERIES if one.kind == GAUGE}
    wait_until(lambda: not gauges & _lines(cluster).keys(), "the gauges of the run are gone")


def test_a_real_prometheus_draws_all_panels_of_a_run_and_evaluates_the_alerts(
    cluster: ManyNodes, tmp_path: Path
) -> None:
    if program("prometheus") is None:
        pytest.skip(MISSING.format(name="prometheus"))
    rules = tmp_path / "alerts.yaml"
    rules.write_text(yaml.safe_dump(_impatient_rules()))
    with (
        running(cluster, tmp_path, "job.name=dogs", "budget.max_cost=0.2"),
        Prometheus(tmp_path / "server", cluster.metrics_addresses(), rules=rules) as prometheus,
    ):
        empty = dict(_queries())

        def drawn() -> bool:
            for title in [title for title, expr in empty.items() if prometheus.query(expr)]:
                del empty[title]
            return empty.keys() <= NOT_HERE

        wait_until(drawn, "all panels to have data")
        told = {}

        def alarmed() -> bool:
            told.update({one["labels"]["alertname"]: one for one in prometheus.alerts()})
            return "ImageMillBudgetTooSmall" in told

        wait_until(alarmed, "the budget to be called too small")
    alert = told["ImageMillBudgetTooSmall"]
    assert alert["labels"]["job_name"] == "dogs"
    assert alert["labels"]["currency"] == "USD"
    assert alert["annotations"]["summary"] == "The budget of job dogs will not suffice"


def _queries() -> Iterator[tuple[str, str]]:
    """What every panel asks Prometheus, with windows for a run of seconds, by board, title and
    number."""
    for board in DASHBOARDS:
        for panel in (panel for row in board.rows for panel in row.panels):
            for number, query in enumerate(panel.queries):
                expr = query.expr.replace("$__rate_interval", "10s").replace("$__range", "5m")
                expr = expr.replace("$project", ".*").replace("$job_name", ".*")
                yield f"{board.uid}: {panel.title} {number}", expr


def _impatient_rules() -> dict[str, Any]:
    """The alerts, which a test cannot wait for as long as a person."""
    rule = yaml.safe_load((ROOT / "k8s/monitoring/prometheus-rule.yaml").read_text())
    groups: list[dict[str, Any]] = rule["spec"]["groups"]
    for one in (one for group in groups for one in group["rules"]):
        one.pop("for", None)
    return {"groups": groups}


def _lost(cluster: ManyNodes, how: str) -> float:
    """How many workers were lost in this way."""
    lines = _all_lines(cluster)
    name = "ray_imagemill_workers_lost_total{"
    (line,) = [one for one in lines if one.startswith(name) and f'how="{how}"' in one]
    return float(line.rsplit(" ", 1)[1])


def _scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def _lines(cluster: ManyNodes) -> dict[str, str]:
    """The last line of each of our series, by name."""
    ours = [line for line in _all_lines(cluster) if line.startswith("ray_imagemill_")]
    return {re.split(r"[{ ]", line, maxsplit=1)[0]: line for line in ours}


def _all_lines(cluster: ManyNodes) -> list[str]:
    texts = [_scrape(address) for address in cluster.metrics_addresses()]
    return [line for text in texts for line in text.splitlines()]


def _types(cluster: ManyNodes) -> dict[str, str]:
    """What Prometheus is told that our series are."""
    found = [re.fullmatch(r"# TYPE (ray_imagemill_\w+) (\w+)", one) for one in _all_lines(cluster)]
    return {match[1]: match[2] for match in found if match}
