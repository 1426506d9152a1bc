"""What KubeRay would refuse or do wrong."""

from __future__ import annotations

from tests.k8s.mutations.mutation import CLUSTER, GROUP, HEAD, HEAD_POD, POD, Mutation, job
from tests.k8s.rendered import drop, put

LONG = "a-name-that-leaves-no-room-for-what-kuberay-appends"
RULE = {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 0}}

MUTATIONS: list[Mutation] = [
    ("ray-name", "a name without room", "job", [job("metadata/name", LONG)]),
    ("ray-name", "a name that is no label", "service", [put("RayCluster", "metadata/name", "1st")]),
    (
        "ray-suspend",
        "suspended without an end",
        "kueue",
        [job("spec/shutdownAfterJobFinishes", False)],
    ),
    (
        "ray-suspend",
        "suspended on another's cluster",
        "kueue",
        [job("spec/clusterSelector", {"a": "b"})],
    ),
    (
        "ray-deletion",
        "a time without an end",
        "job",
        [drop("RayJob", "spec/shutdownAfterJobFinishes")],
    ),
    (
        "ray-deletion",
        "two ways of deleting",
        "job",
        [job("spec/deletionStrategy", {"deletionRules": [RULE]})],
    ),
    (
        "ray-submission",
        "a sidecar with a submitter",
        "job",
        [job("spec/submissionMode", "SidecarMode")],
    ),
    (
        "ray-submission",
        "a mode that does not exist",
        "job",
        [job("spec/submissionMode", "JobMode")],
    ),
    (
        "ray-submission",
        "retries of an interactive job",
        "job",
        [job("spec/submissionMode", "InteractiveMode")],
    ),
    (
        "ray-submission",
        "retries on another's cluster",
        "job",
        [job("spec/clusterSelector", {"a": "b"})],
    ),
    ("ray-restart-policy", "a restarted worker", "job", [job(f"{POD}/restartPolicy", "Always")]),
    (
        "ray-restart-policy",
        "a restarted head",
        "job",
        [job(f"{HEAD_POD}/restartPolicy", "OnFailure")],
    ),
    (
        "ray-autoscaler-v2",
        "a priority for the first autoscaler",
        "spot",
        [
            drop("RayJob", f"{CLUSTER}/autoscalerOptions/version"),
        ],
    ),
    (
        "ray-autoscaler-v2",
        "an idle time without an autoscaler",
        "kueue",
        [job(f"{GROUP}/idleTimeoutSeconds", 5)],
    ),
    (
        "ray-redis-once",
        "Redis in the environment",
        "service",
        [
            put(
                "RayCluster",
                "spec/headGroupSpec/template/spec/containers/0/env",
                [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}],
            ),
        ],
    ),
    (
        "ray-redis-once",
        "Redis in an annotation",
        "service",
        [
            put(
                "RayCluster", "metadata/annotations", {"ray.io/external-storage-namespace": "mine"}
            ),
        ],
    ),
    (
        "ray-redis-once",
        "Redis in the start parameters",
        "service",
        [
            put("RayCluster", "spec/headGroupSpec/rayStartParams/redis-password", "x"),
        ],
    ),
    ("ray-resources-once", "resources told twice", "job", [job(f"{HEAD}/resources", {"CPU": "0"})]),
    ("ray-start-params", "a number for a text", "job", [job(f"{HEAD}/rayStartParams/num-cpus", 0)]),
    (
        "ray-start-params",
        "no option of ray start",
        "job",
        [job(f"{GROUP}/rayStartParams/num-cpu", "1")],
    ),
    (
        "ray-start-params",
        "labels in the wrong place",
        "job",
        [job(f"{GROUP}/rayStartParams/labels", "a=b")],
    ),
    ("ray-replicas", "fewer than the least", "kueue", [job(f"{GROUP}/replicas", 2)]),
    (
        "ray-replicas",
        "no most without the autoscaler",
        "kueue",
        [drop("RayJob", f"{GROUP}/maxReplicas")],
    ),
    (
        "ray-version",
        "another Ray than the image's",
        "job",
        [job(f"{CLUSTER}/rayVersion", "2.51.0")],
    ),
    ("ray-token", "a dashboard for everybody", "job", [drop("RayJob", f"{CLUSTER}/authOptions")]),
    ("ray-gates", "a policy that needs a gate", "job", [job(f"{CLUSTER}/networkPolicy", {})]),
    ("ray-gates", "a deletion that needs a gate", "job", [job("spec/deletionStrategy", {})]),
    ("ray-idle-head", "a head that works", "job", [job(f"{HEAD}/rayStartParams/num-cpus", "2")]),
    (
        "ray-idle-head",
        "a head with a GPU",
        "job",
        [
            job(f"{HEAD_POD}/containers/0/resources/limits/nvidia.com~gpu", 1),
        ],
    ),
]
