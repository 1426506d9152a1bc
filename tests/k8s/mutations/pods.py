"""Rights, resources, and how a pod is taken away."""

from __future__ import annotations

from tests.k8s.mutations.mutation import CLUSTER, HEAD, HEAD_POD, MAIN, POD, Mutation, job
from tests.k8s.rendered import drop, put, remove, say

MUTATIONS: list[Mutation] = [
    ("pod-unprivileged", "root", "job", [job(f"{POD}/securityContext/runAsUser", 0)]),
    (
        "pod-unprivileged",
        "perhaps root",
        "job",
        [drop("RayJob", f"{HEAD_POD}/securityContext/runAsNonRoot")],
    ),
    (
        "pod-unprivileged",
        "no seccomp",
        "service",
        [
            drop("StatefulSet", "spec/template/spec/securityContext/seccompProfile"),
        ],
    ),
    ("pod-unprivileged", "the node's network", "job", [job(f"{POD}/hostNetwork", True)]),
    (
        "pod-unprivileged",
        "a folder of the node",
        "job",
        [
            job(f"{POD}/volumes/-", {"name": "node", "hostPath": {"path": "/"}}),
        ],
    ),
    (
        "container-unprivileged",
        "files that may be changed",
        "job",
        [
            drop("RayJob", f"{MAIN}/securityContext/readOnlyRootFilesystem"),
        ],
    ),
    (
        "container-unprivileged",
        "capabilities that stay",
        "job",
        [
            job(
                "spec/submitterPodTemplate/spec/containers/0/securityContext/capabilities/drop", []
            ),
        ],
    ),
    (
        "container-unprivileged",
        "a capability more",
        "job",
        [
            job(f"{MAIN}/securityContext/capabilities/add", ["SYS_PTRACE"]),
        ],
    ),
    (
        "container-unprivileged",
        "an autoscaler with rights",
        "job",
        [
            drop("RayJob", f"{CLUSTER}/autoscalerOptions/securityContext"),
        ],
    ),
    (
        "container-resources",
        "no limit of memory",
        "job",
        [drop("RayJob", f"{MAIN}/resources/limits/memory")],
    ),
    (
        "container-resources",
        "a request above its limit",
        "job",
        [job(f"{MAIN}/resources/requests/cpu", "5")],
    ),
    (
        "scratch-fits",
        "more to write than allowed",
        "job",
        [job(f"{POD}/volumes/0/emptyDir/sizeLimit", "31Gi")],
    ),
    (
        "scratch-fits",
        "a folder without an end",
        "triton",
        [drop("StatefulSet", "spec/template/spec/volumes/1/emptyDir/sizeLimit")],
    ),
    (
        "scratch-fits",
        "no limit of the disk",
        "job",
        [drop("RayJob", f"{MAIN}/resources/limits/ephemeral-storage")],
    ),
    (
        "no-secrets",
        "a secret in git",
        "job",
        [
            lambda bodies: bodies.append(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "s"},
                    "stringData": {"a": "b"},
                }
            ),
        ],
    ),
    (
        "no-secrets",
        "a key in a variable",
        "job",
        [
            job(f"{MAIN}/env/-", {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}),
        ],
    ),
    (
        "no-secrets",
        "a token among the settings",
        "job",
        [
            put("ConfigMap", "data/HF_TOKEN", "x", name="imagemill-settings"),
        ],
    ),
    (
        "service-account",
        "the default account",
        "job",
        [drop("RayJob", f"{POD}/serviceAccountName")],
    ),
    (
        "service-account",
        "a token that nobody needs",
        "job",
        [
            job(f"{POD}/automountServiceAccountToken", True),
        ],
    ),
    (
        "service-account",
        "an autoscaler without its token",
        "job",
        [
            job(f"{HEAD_POD}/automountServiceAccountToken", False),
        ],
    ),
    ("writable-folders", "nowhere to write", "job", [drop("RayJob", f"{MAIN}/volumeMounts/0")]),
    (
        "namespace-restricted",
        "a namespace for anything",
        "job",
        [
            put("Namespace", "metadata/labels/pod-security.kubernetes.io~enforce", "baseline"),
        ],
    ),
    ("disruption-budget", "no budget", "job", [remove("PodDisruptionBudget", "imagemill-worker")]),
    (
        "disruption-budget",
        "one of two heads may go",
        "job",
        [put("PodDisruptionBudget", "spec/minAvailable", 1, name="imagemill-head")],
    ),
    (
        "head-undisturbed",
        "a head that Karpenter moves",
        "job",
        [drop("RayJob", f"{HEAD}/template/metadata/annotations/karpenter.sh~do-not-disrupt")],
    ),
    (
        "head-undisturbed",
        "a head that is safe to evict",
        "service",
        [
            put(
                "RayCluster",
                "spec/headGroupSpec/template/metadata/annotations/"
                "cluster-autoscaler.kubernetes.io~safe-to-evict",
                "true",
            )
        ],
    ),
    (
        "disruption-budget",
        "a budget that cannot be counted",
        "job",
        [
            put(
                "PodDisruptionBudget",
                "spec",
                {
                    "maxUnavailable": "25%",
                    "selector": {"matchLabels": {"app.kubernetes.io/component": "worker"}},
                },
                name="imagemill-worker",
            ),
        ],
    ),
    ("spread", "all in one zone", "job", [drop("RayJob", f"{POD}/topologySpreadConstraints")]),
    (
        "spread",
        "a spread over other pods",
        "job",
        [
            job(f"{POD}/topologySpreadConstraints/0/labelSelector", {"matchLabels": {"app": "x"}}),
        ],
    ),
    ("leaving", "nobody tells the worker", "job", [drop("RayJob", f"{MAIN}/lifecycle")]),
    (
        "leaving",
        "an option that the hook does not have",
        "job",
        [
            job(f"{MAIN}/lifecycle/preStop/exec/command/3", "--notice-seconds=30"),
        ],
    ),
    (
        "leaving",
        "killed before its notice is over",
        "job",
        [job(f"{POD}/terminationGracePeriodSeconds", 30)],
    ),
    ("leaving", "two notices", "spot", [say("preemption_notice_s=15", "preemption_notice_s=30")]),
]
