"""What Kueue would refuse or never admit."""

from __future__ import annotations

from tests.k8s.mutations.mutation import CLUSTER, GROUP, MAIN, Mutation, job
from tests.k8s.rendered import drop, put

FLAVOR = "spec/resourceGroups/0/flavors/1"
MANY_GROUPS = [{"groupName": f"gpu-{n}", "replicas": 0, "template": {}} for n in range(18)]

MUTATIONS: list[Mutation] = [
    (
        "kueue-version",
        "a version that is converted",
        "kueue",
        [
            put("LocalQueue", "apiVersion", "kueue.x-k8s.io/v1beta1", name="images"),
        ],
    ),
    (
        "kueue-names",
        "an unknown queue",
        "kueue",
        [job("metadata/labels/kueue.x-k8s.io~queue-name", "pictures")],
    ),
    (
        "kueue-names",
        "an unknown priority",
        "kueue",
        [job("metadata/labels/kueue.x-k8s.io~priority-class", "vip")],
    ),
    (
        "kueue-names",
        "a queue of nothing",
        "kueue",
        [
            put("LocalQueue", "spec/clusterQueue", "others", name="trials"),
        ],
    ),
    ("kueue-names", "an unknown flavor", "kueue", [put("ClusterQueue", f"{FLAVOR}/name", "tpu")]),
    ("kueue-admissible", "a job that does not wait", "kueue", [drop("RayJob", "spec/suspend")]),
    (
        "kueue-admissible",
        "a job that stays",
        "kueue",
        [drop("RayJob", "spec/shutdownAfterJobFinishes")],
    ),
    ("kueue-admissible", "a group named head", "kueue", [job(f"{GROUP}/groupName", "head")]),
    (
        "kueue-admissible",
        "too many groups",
        "kueue",
        [job(f"{CLUSTER}/workerGroupSpecs", MANY_GROUPS)],
    ),
    ("kueue-admissible", "another's cluster", "kueue", [job("spec/clusterSelector", {"a": "b"})]),
    (
        "kueue-elastic",
        "an autoscaler in a queue",
        "kueue",
        [job(f"{CLUSTER}/enableInTreeAutoscaling", True)],
    ),
    (
        "kueue-quota",
        "a resource that no quota covers",
        "kueue",
        [
            job(f"{MAIN}/resources/requests/hugepages-2Mi", "64Mi"),
        ],
    ),
    ("kueue-quota", "more GPUs than can be borrowed", "kueue", [job(f"{GROUP}/replicas", 17)]),
]
