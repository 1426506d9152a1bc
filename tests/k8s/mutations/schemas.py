"""What the schemas and the CEL rules must refuse."""

from __future__ import annotations

import copy

import yaml

from k8s.lint.render import ROOT
from tests.k8s.mutations.mutation import CLUSTER, GROUP, MAIN, Mutation, job
from tests.k8s.rendered import Change, drop, put

MONITOR = yaml.safe_load((ROOT / "monitoring/pod-monitor.yaml").read_text())


def monitor(path: str, value: object) -> list[Change]:
    """A PodMonitor beside the rest, with something else in it."""
    return [
        lambda bodies: bodies.append(copy.deepcopy(MONITOR)),
        put("PodMonitor", path, value),
    ]


FLAVOR = "spec/resourceGroups/0/flavors/1"

MUTATIONS: list[Mutation] = [
    ("crd-schema", "an unknown field", "job", [job("spec/shutdownAfterJobFinish", True)]),
    ("crd-schema", "a field of another place", "job", [job(f"{MAIN}/nodeSelector", {"a": "b"})]),
    ("crd-schema", "a wrong type", "job", [job("spec/backoffLimit", "two")]),
    ("crd-schema", "a value of no list", "job", [job(f"{CLUSTER}/authOptions/mode", "tokens")]),
    ("crd-schema", "a missing field", "job", [drop("RayJob", f"{GROUP}/groupName")]),
    ("crd-schema", "a version without a CRD", "job", [job("apiVersion", "ray.io/v2")]),
    ("crd-schema", "the cohort of v1beta1", "kueue", [put("ClusterQueue", "spec/cohort", "gpus")]),
    (
        "monitoring-schema",
        "an unknown field of a monitor",
        "job",
        monitor("spec/podMetricsEndpoints/0/scrapeInterval", "15s"),
    ),
    (
        "monitoring-schema",
        "a time that is none",
        "job",
        monitor("spec/podMetricsEndpoints/0/interval", "15"),
    ),
    (
        "monitoring-schema",
        "a kind without a schema",
        "job",
        monitor("kind", "PodMonitors"),
    ),
    (
        "crd-cel",
        "a limit on borrowing of nobody",
        "kueue",
        [drop("ClusterQueue", "spec/cohortName")],
    ),
    (
        "crd-cel",
        "a flavor without a resource",
        "kueue",
        [drop("ClusterQueue", f"{FLAVOR}/resources/2")],
    ),
    (
        "crd-cel",
        "preemption that contradicts itself",
        "kueue",
        [
            put("ClusterQueue", "spec/preemption/reclaimWithinCohort", "Never"),
            put("ClusterQueue", "spec/preemption/borrowWithinCohort/policy", "LowerPriority"),
        ],
    ),
    (
        "core-schema",
        "an unknown field of a policy",
        "job",
        [put("NetworkPolicy", "spec/podSelectors", {}, name="deny-all")],
    ),
    (
        "core-schema",
        "a misspelt probe",
        "dev",
        [put("Deployment", "spec/template/spec/containers/0/readinesProbe", {})],
    ),
    (
        "core-schema",
        "a container without a name, in a RayJob's pod",
        "job",
        [drop("RayJob", f"{MAIN}/name")],
    ),
    (
        "core-schema",
        "an API that is no more",
        "job",
        [
            put("PodDisruptionBudget", "apiVersion", "policy/v1beta1", name="imagemill-head"),
        ],
    ),
]
