"""What ``kubectl apply -k k8s/monitoring`` would bring fits the pods that the overlays make."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml

from k8s.lint.bundle import Bundle
from k8s.lint.checks import SCHEMAS, check
from k8s.lint.manifest import Manifest
from k8s.lint.render import ROOT, overlays, render
from tests.k8s.rendered import rendered

MONITORING = ROOT / "monitoring"
_MOST_BYTES = 256 * 1024
"""What kubectl can note of an object that it applies."""


@cache
def monitoring() -> Bundle:
    return Bundle(name="monitoring", manifests=render(MONITORING))


def only(kind: str) -> Manifest:
    (found,) = monitoring().of_kind(kind)
    return found


def test_it_brings_scraping_alerts_and_every_dashboard_unchanged() -> None:
    assert {one.kind for one in monitoring().manifests} == {
        "PodMonitor",
        "PrometheusRule",
        "ConfigMap",
    }
    rule = yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())
    assert only("PrometheusRule").spec == rule["spec"]
    dashboards = only("ConfigMap")
    files = {path.name: path.read_text() for path in Path(MONITORING, "dashboards").iterdir()}
    assert dashboards.body["data"] == files
    assert dashboards.labels["grafana_dashboard"] == "1"
    assert sum(len(text.encode()) for text in files.values()) < _MOST_BYTES


def test_the_operators_schemas_know_every_field_of_it() -> None:
    assert [str(finding) for finding in check(monitoring(), SCHEMAS)] == []


@pytest.mark.parametrize("name", overlays())
def test_every_head_and_worker_is_scraped_at_a_port_that_its_network_policy_opens(
    name: str,
) -> None:
    bundle = rendered(name)
    selector = only("PodMonitor").spec["selector"]
    (among,) = selector["matchExpressions"]
    (endpoint,) = only("PodMonitor").spec["podMetricsEndpoints"]
    (policy,) = [one for one in bundle.of_kind("NetworkPolicy") if one.name == "allow-metrics"]
    (opened,) = policy.spec["ingress"][0]["ports"]
    pods = [*bundle.pods("head", "worker")]
    assert len(pods) >= 2
    for pod in pods:
        assert selector["matchLabels"].items() <= pod.labels.items(), pod
        assert pod.labels[among["key"]] in among["values"], pod
        ports = {port["name"]: port["containerPort"] for port in pod.main["ports"]}
        assert ports[endpoint["port"]] == opened["port"], pod


def test_pods_that_run_no_ray_are_not_scraped() -> None:
    selector = only("PodMonitor").spec["selector"]
    (among,) = selector["matchExpressions"]
    for name in overlays():
        for pod in rendered(name).pods("submitter", "other"):
            assert pod.labels.get(among["key"]) not in among["values"], pod
