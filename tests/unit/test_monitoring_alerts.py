"""Each alert fires when it should and not a little before, by Prometheus' own test tool."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULE = yaml.safe_load((ROOT / "k8s/monitoring/prometheus-rule.yaml").read_text())
ALERTS = {rule["alert"]: rule for group in RULE["spec"]["groups"] for rule in group["rules"]}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
END = "60m"

HEALTHY = {
    'rows{state="committed"}': "0+20x60",
    'rows{state="quarantined"}': "0x60",
    'rows{state="pending"}': "2000-20x60",
    "quarantine_limit_ratio": "0.01x60",
    "images": "0+20x60",
    "images_made_total": "0+20x60",
    "commits_total": "0+2x60",
    'workers{phase="running"}': "4x60",
    'workers{phase="loading"}': "0x60",
    "workers_wanted": "4x60",
    "workers_waiting": "0x60",
    'workers_lost_total{how="died"}': "0x60",
    'workers_lost_total{how="hung"}': "0x60",
    'workers_lost_total{how="silent"}': "0x60",
    'workers_lost_total{how="stopped"}': "0x60",
    'spent{currency="USD"}': "0+1x60",
    'budget_left{currency="USD"}': "200-1x60",
    "budget_used_ratio": "0+0.005x60",
    "device_busy_seconds_total": "0+220x60",
    "worker_seconds_total": "0+240x60",
    "store_retries_total": "0x60",
    "store_put_seconds_count": "0+25x60",
}
"""An hour of a job of 2,000 rows with four workers, a value a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is different from a healthy job, and which alert that concerns."""

    alert: str
    about: str
    changes: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


FIRING = (
    Case(
        alert="ImageMillJobStalled",
        about="nothing is made or committed for 50 minutes",
        changes={"images_made_total": "0+20x10 200x50", "commits_total": "0+2x10 20x50"},
    ),
    Case(
        alert="ImageMillJobStalled",
        about="it began 30 minutes ago and has made nothing",
        changes={
            'rows{state="pending"}': "_x30 2000x30",
            "images_made_total": "_x30 0x30",
            "commits_total": "_x30 0x30",
        },
    ),
    Case(
        alert="ImageMillRowsQuarantined",
        about="1 of 21 rows is quarantined",
        changes={'rows{state="quarantined"}': "0+1x60"},
    ),
    Case(
        alert="ImageMillBudgetNearlyUsed",
        about="81 % are used",
        changes={"budget_used_ratio": "0.81x60"},
    ),
    Case(
        alert="ImageMillBudgetTooSmall",
        about="one unit too little is left",
        changes={'budget_left{currency="USD"}': "99-1x60"},
        labels={"currency": "USD"},
    ),
    Case(
        alert="ImageMillWorkWasted",
        about="a quarter of the images does not count",
        changes={"images": "0+15x60"},
    ),
    Case(
        alert="ImageMillDevicesIdle",
        about="46 % in use",
        changes={"device_busy_seconds_total": "0+110x60"},
    ),
    Case(
        alert="ImageMillWorkersDie",
        about="three of four died, one hung",
        changes={
            'workers_lost_total{how="died"}': "0x50 2x10",
            'workers_lost_total{how="hung"}': "0x50 1x10",
        },
    ),
    Case(
        alert="ImageMillWorkersSilent",
        about="one ten minutes ago",
        changes={'workers_lost_total{how="silent"}': "0x50 1x10"},
    ),
    Case(
        alert="ImageMillWorkersMissing",
        about="it began 22 minutes ago and no machine has come",
        changes={
            'workers{phase="running"}': "_x38 0x22",
            'workers{phase="loading"}': "_x38 0x22",
            "workers_waiting": "_x38 8x22",
        },
    ),
    Case(
        alert="ImageMillWorkersMissing",
        about="four are at work and two more do not come for 22 minutes",
        changes={"workers_waiting": "0x38 2x22"},
    ),
    Case(
        alert="ImageMillStoreErrors",
        about="2 retries on 25 objects",
        changes={"store_retries_total": "0+2x60"},
    ),
    Case(
        alert="ImageMillStoreErrors",
        about="retries only, no object lands",
        changes={"store_retries_total": "0+2x60", "store_put_seconds_count": "5x60"},
    ),
    Case(
        alert="ImageMillStoreStopsWorkers",
        about="one ten minutes ago",
        changes={'workers_lost_total{how="stopped"}': "0x50 1x10"},
    ),
)
QUIET = (
    Case(
        alert="ImageMillJobStalled",
        about="only for 20 minutes",
        changes={"images_made_total": "0+20x40 800x20", "commits_total": "0+2x40 80x20"},
    ),
    Case(
        alert="ImageMillJobStalled",
        about="it began 20 minutes ago and waits for its first machines",
        changes={
            'rows{state="pending"}': "_x40 2000x20",
            "images_made_total": "_x40 0x20",
            "commits_total": "_x40 0x20",
        },
    ),
    Case(
        alert="ImageMillJobStalled",
        about="images are made, the next commit takes its time",
        changes={"commits_total": "0+2x10 20x50"},
    ),
    Case(
        alert="ImageMillJobStalled",
        about="no image is made, for all rows are quarantined",
        changes={"images_made_total": "0+20x10 200x50"},
    ),
    Case(
        alert="ImageMillJobStalled",
        about="no row is left",
        changes={
            'rows{state="pending"}': "0x60",
            "images_made_total": "200x60",
            "commits_total": "20x60",
        },
    ),
    Case(
        alert="ImageMillRowsQuarantined",
        about="as many as are allowed",
        changes={'rows{state="committed"}': "0+99x60", 'rows{state="quarantined"}': "0+1x60"},
    ),
    Case(
        alert="ImageMillRowsQuarantined",
        about="half of the first rows, which are few",
        changes={'rows{state="committed"}': "49x60", 'rows{state="quarantined"}': "49x60"},
    ),
    Case(
        alert="ImageMillBudgetNearlyUsed",
        about="79 % are used",
        changes={"budget_used_ratio": "0.79x60"},
    ),
    Case(
        alert="ImageMillBudgetTooSmall",
        about="one unit more is left than is needed",
        changes={'budget_left{currency="USD"}': "101-1x60"},
    ),
    Case(
        alert="ImageMillBudgetTooSmall",
        about="too few rows are done to tell",
        changes={
            'rows{state="committed"}': "99x60",
            'budget_left{currency="USD"}': "1x60",
        },
    ),
    Case(
        alert="ImageMillWorkWasted",
        about="15 % do not count",
        changes={"images": "0+17x60"},
    ),
    Case(
        alert="ImageMillWorkWasted",
        about="most of few images do not count",
        changes={"images": "0+1x60", "images_made_total": "0+3x60"},
    ),
    Case(
        alert="ImageMillDevicesIdle",
        about="52 % in use",
        changes={"device_busy_seconds_total": "0+125x60"},
    ),
    Case(
        alert="ImageMillWorkersDie",
        about="two of four",
        changes={'workers_lost_total{how="died"}': "0x50 2x10"},
    ),
    Case(
        alert="ImageMillWorkersDie",
        about="ten of two hundred",
        changes={
            'workers{phase="running"}': "200x60",
            'workers_lost_total{how="died"}': "0x50 10x10",
        },
    ),
    Case(
        alert="ImageMillWorkersDie",
        about="they stopped for the store",
        changes={'workers_lost_total{how="stopped"}': "0x50 4x10"},
    ),
    Case(
        alert="ImageMillWorkersSilent",
        about="one long ago",
        changes={'workers_lost_total{how="silent"}': "0x5 1x55"},
    ),
    Case(
        alert="ImageMillWorkersMissing",
        about="it began 18 minutes ago",
        changes={
            'workers{phase="running"}': "_x42 0x18",
            'workers{phase="loading"}': "_x42 0x18",
            "workers_waiting": "_x42 8x18",
        },
    ),
    Case(
        alert="ImageMillWorkersMissing",
        about="four are at work, and two more are waited for since 18 minutes",
        changes={"workers_waiting": "0x42 2x18"},
    ),
    Case(
        alert="ImageMillWorkersMissing",
        about="one comes every ten minutes",
        changes={
            'workers{phase="running"}': "0x9 1x9 2x9 3x9 4x9 5x9 6x6",
            "workers_waiting": "6x60",
        },
    ),
    Case(
        alert="ImageMillStoreErrors",
        about="1 retry on 25 objects",
        changes={"store_retries_total": "0+1x60"},
    ),
    Case(
        alert="ImageMillStoreStopsWorkers",
        about="one long ago",
        changes={'workers_lost_total{how="stopped"}': "0x5 1x55"},
    ),
)


def series(text: str) -> str:
    name, _, labels = text.partition("{")
    more = f",{labels}" if labels else "}"
    return f'ray_imagemill_{name}{{job_name="cats",project="shop"{more}'


def check(promtool: Path, folder: Path, case: Case | None, alert: str, expected: Any) -> None:
    """``promtool test rules``: what is ALERTS at the end of the hour?"""
    (folder / "alerts.yaml").write_text(yaml.safe_dump(RULE["spec"]))
    found = HEALTHY | dict(case.changes if case else {})
    assert found.keys() == HEALTHY.keys(), "a change of what is not there changes nothing"
    test = {
        "interval": "1m",
        "input_series": [{"series": series(name), "values": v} for name, v in found.items()],
        "promql_expr_test": [{"expr": alert, "eval_time": END, "exp_samples": expected}],
    }
    tests = folder / "tests.yaml"
    tests.write_text(
        yaml.safe_dump(
            {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [test]}
        )
    )
    run(promtool, "test", "rules", str(tests))


def run(promtool: Path, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def firing(alert: str) -> str:
    return f'ALERTS{{alertname="{alert}",alertstate="firing"}}'


@pytest.mark.parametrize("case", FIRING, ids=lambda case: f"{case.alert}: {case.about}")
def test_the_alert_fires(case: Case, promtool: Path, tmp_path: Path) -> None:
    labels = {
        "alertname": case.alert,
        "alertstate": "firing",
        "job_name": "cats",
        "project": "shop",
        "severity": ALERTS[case.alert]["labels"]["severity"],
        **case.labels,
    }
    words = ",".join(f'{name}="{value}"' for name, value in labels.items())
    expected = [{"labels": f"ALERTS{{{words}}}", "value": 1}]
    check(promtool, tmp_path, case, firing(case.alert), expected)


@pytest.mark.parametrize("case", QUIET, ids=lambda case: f"{case.alert}: {case.about}")
def test_the_alert_does_not_fire_yet(case: Case, promtool: Path, tmp_path: Path) -> None:
    check(promtool, tmp_path, case, firing(case.alert), [])


def test_a_healthy_job_raises_no_alert_and_none_is_pending(promtool: Path, tmp_path: Path) -> None:
    check(promtool, tmp_path, None, "ALERTS", [])


def test_every_alert_is_tried_both_ways() -> None:
    assert {case.alert for case in FIRING} == ALERTS.keys()
    assert {case.alert for case in QUIET} == ALERTS.keys()


def test_prometheus_finds_nothing_wrong_with_the_rules(promtool: Path, tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yaml"
    rules.write_text(yaml.safe_dump(RULE["spec"]))
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(rules))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_is_wrong_and_where_to_read_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert "{{ $labels.job_name }}" in notes["summary"]
    for word in ("{{ $value", "{{ $labels.job_name }}", "{{ $labels.project }}"):
        assert word in " ".join(notes["description"].split()), word
    assert notes["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    assert f"\n## {alert}\n" in RUNBOOK


def test_the_runbook_has_no_entry_for_an_alert_that_is_no_more() -> None:
    headings = [line[3:] for line in RUNBOOK.splitlines() if line.startswith("## ImageMill")]
    assert headings == list(ALERTS)
