"""Images, names, selectors and networks."""

from __future__ import annotations

from tests.k8s.mutations.mutation import CLUSTER, MAIN, Mutation, job
from tests.k8s.rendered import drop, put, remove

MUTATIONS: list[Mutation] = [
    (
        "image-exact",
        "latest",
        "job",
        [job(f"{MAIN}/image", "registry.example.com/imagemill:latest")],
    ),
    ("image-exact", "no tag", "job", [job(f"{MAIN}/image", "registry.example.com:5000/imagemill")]),
    (
        "image-exact",
        "a version that moves",
        "service",
        [
            put("StatefulSet", "spec/template/spec/containers/0/image", "redis:7.4"),
        ],
    ),
    (
        "reference-known",
        "settings that are not there",
        "job",
        [remove("ConfigMap", "imagemill-settings")],
    ),
    (
        "reference-known",
        "a volume claim that is not there",
        "job",
        [
            remove("PersistentVolumeClaim", "imagemill-models"),
        ],
    ),
    (
        "reference-known",
        "an account that is not there",
        "job",
        [remove("ServiceAccount", "imagemill-worker")],
    ),
    (
        "reference-known",
        "a priority that is not there",
        "job",
        [remove("PriorityClass", "imagemill-head")],
    ),
    (
        "reference-known",
        "a secret that nobody lists",
        "service",
        [
            put(
                "RayCluster",
                "spec/gcsFaultToleranceOptions/redisPassword/valueFrom/secretKeyRef/name",
                "redis",
            ),
        ],
    ),
    (
        "config-key-known",
        "a key that is not there",
        "job",
        [
            job(
                f"{MAIN}/env/-",
                {
                    "name": "HF_HUB",
                    "valueFrom": {"configMapKeyRef": {"name": "imagemill-settings", "key": "HUB"}},
                },
            ),
        ],
    ),
    ("mounts", "a mount of nothing", "job", [job(f"{MAIN}/volumeMounts/0/name", "tmp")]),
    (
        "mounts",
        "an autoscaler's mount of nothing",
        "job",
        [
            job(f"{CLUSTER}/autoscalerOptions/volumeMounts/0/name", "tmp"),
        ],
    ),
    (
        "mounts",
        "two volumes at one place",
        "job",
        [job(f"{MAIN}/volumeMounts/1/mountPath", "/tmp")],
    ),
    (
        "selector-matches",
        "a policy for nobody",
        "job",
        [
            put(
                "NetworkPolicy",
                "spec/podSelector/matchLabels/app.kubernetes.io~component",
                "heads",
                name="allow-dashboard",
            ),
        ],
    ),
    (
        "selector-matches",
        "a service without pods",
        "dev",
        [
            put("Service", "spec/selector/app.kubernetes.io~component", "seaweedfs"),
        ],
    ),
    (
        "service-port",
        "a port that is not there",
        "dev",
        [put("Service", "spec/ports/0/targetPort", "http")],
    ),
    ("network-closed", "open by default", "job", [remove("NetworkPolicy", "deny-all")]),
    (
        "network-closed",
        "open outwards by default",
        "job",
        [
            put("NetworkPolicy", "spec/policyTypes", ["Ingress"], name="deny-all"),
        ],
    ),
    ("network-outside", "no store", "dev", [remove("NetworkPolicy", "allow-stores")]),
    (
        "network-outside",
        "no Kubernetes for the autoscaler",
        "spot",
        [remove("NetworkPolicy", "allow-kubernetes-api")],
    ),
    ("network-outside", "no metrics", "job", [remove("NetworkPolicy", "allow-metrics")]),
    (
        "network-outside",
        "metrics at another port",
        "job",
        [put("RayJob", f"{MAIN}/ports/0/containerPort", 9090)],
    ),
    (
        "network-outside",
        "metrics without a name",
        "job",
        [put("RayJob", f"{MAIN}/ports/0/name", "numbers")],
    ),
    ("network-ray", "no DNS", "job", [remove("NetworkPolicy", "allow-dns")]),
    (
        "network-ray",
        "workers that do not reach the head",
        "job",
        [drop("NetworkPolicy", "spec/egress", name="allow-ray")],
    ),
    (
        "network-ray",
        "Ray's ports closed",
        "job",
        [
            put("NetworkPolicy", "spec/ingress/0/ports", [{"port": 6379}], name="allow-ray"),
        ],
    ),
    (
        "network-ray",
        "no way in for the operator",
        "job",
        [
            drop("NetworkPolicy", "spec/ingress/0/from/1", name="allow-dashboard"),
        ],
    ),
    (
        "network-ray",
        "no way in for the submitter",
        "job",
        [
            drop("NetworkPolicy", "spec/ingress/0/from/0", name="allow-dashboard"),
        ],
    ),
]
