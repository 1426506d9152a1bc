"""What KubeRay refuses, or does wrong, only when its operator sees the object (KubeRay 1.7)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, RayCluster, within

_LONGEST_NAME = 47
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
_TWICE = ("num-cpus", "num-gpus", "memory", "resources")
_REDIS_VARIABLES = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
_REDIS_ANNOTATIONS = ("ray.io/ft-enabled", "ray.io/external-storage-namespace")
_REDIS_PARAMETERS = ("redis-password", "redis-username")
_GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
_AUTH_SINCE = (2, 52)


def names(bundle: Bundle) -> Iterator[Found]:
    """A name that leaves no room for what KubeRay appends, or is no DNS label."""
    for one in bundle.of_kind("RayJob", "RayCluster"):
        if len(one.name) > _LONGEST_NAME or not _NAME.fullmatch(one.name):
            yield Found(
                str(one),
                f"the name has {len(one.name)} characters; expected at most {_LONGEST_NAME}: "
                "small letters, digits and '-', beginning with a letter",
            )


def suspend(bundle: Bundle) -> Iterator[Found]:
    """A suspended RayJob whose cluster would stay, or is not its own."""
    for job in bundle.of_kind("RayJob"):
        if not job.spec.get("suspend"):
            continue
        if not job.spec.get("shutdownAfterJobFinishes"):
            yield Found(str(job), "suspend needs shutdownAfterJobFinishes: true")
        if job.spec.get("clusterSelector"):
            yield Found(str(job), "suspend excludes clusterSelector")


def deletion(bundle: Bundle) -> Iterator[Found]:
    """Two ways of deleting that exclude each other, or a time without a deletion."""
    for job in bundle.of_kind("RayJob"):
        shutdown = job.spec.get("shutdownAfterJobFinishes", False)
        if job.spec.get("ttlSecondsAfterFinished", 0) > 0 and not shutdown:
            yield Found(str(job), "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true")
        if within(job.spec, "deletionStrategy", "deletionRules") and shutdown:
            yield Found(
                str(job), "deletionStrategy.deletionRules excludes shutdownAfterJobFinishes: true"
            )


def submission(bundle: Bundle) -> Iterator[Found]:
    """Keys of a submitter that the mode of submission does not have."""
    for job in bundle.of_kind("RayJob"):
        mode = job.spec.get("submissionMode", "K8sJobMode")
        if mode not in _MODES:
            yield Found(str(job), f"submissionMode is {mode}; expected one of {', '.join(_MODES)}")
        for key in ("submitterConfig", "submitterPodTemplate"):
            if mode == "SidecarMode" and key in job.spec:
                yield Found(str(job), f"submissionMode: SidecarMode excludes {key}")
        if mode == "InteractiveMode" and job.spec.get("backoffLimit", 0) > 0:
            yield Found(str(job), "submissionMode: InteractiveMode excludes backoffLimit")
        if "clusterSelector" in job.spec and job.spec.get("backoffLimit", 0) > 0:
            yield Found(str(job), "clusterSelector excludes backoffLimit: a retry is a new cluster")


def restart_policy(bundle: Bundle) -> Iterator[Found]:
    """Pods that the second autoscaler cannot replace, since Kubernetes restarts them in place."""
    for cluster in bundle.clusters():
        if not cluster.autoscaler_v2:
            continue
        for group in (cluster.head, *cluster.groups):
            policy = within(group, "template", "spec", "restartPolicy", default="Never")
            if policy != "Never":
                yield Found(
                    _group(cluster, group),
                    f"restartPolicy is {policy}; autoscaler v2 expects Never, or none",
                )


def second_autoscaler(bundle: Bundle) -> Iterator[Found]:
    """What only the second autoscaler understands of a group."""
    for cluster in bundle.clusters():
        for group in cluster.groups:
            for key in ("idleTimeoutSeconds", "priority"):
                if key in group and not cluster.autoscaler_v2:
                    yield Found(
                        _group(cluster, group),
                        f"{key} needs enableInTreeAutoscaling: true and autoscalerOptions.version: "
                        "v2",
                    )


def redis_once(bundle: Bundle) -> Iterator[Found]:
    """Redis told twice, or fault tolerance switched on by the way."""
    for cluster in bundle.clusters():
        options = "gcsFaultToleranceOptions" in cluster.spec
        head = _main(cluster.head)
        variables = {one.get("name") for one in head.get("env", ())}
        annotations = within(cluster.owner.body, "metadata", "annotations", default={})
        parameters = cluster.head.get("rayStartParams", {})
        found = [name for name in _REDIS_VARIABLES if name in variables]
        found += [name for name in _REDIS_ANNOTATIONS if name in annotations]
        found += [name for name in _REDIS_PARAMETERS if name in parameters]
        for name in found:
            beside = "excludes it" if options else "is the place for it"
            yield Found(str(cluster.owner), f"{name} is set; gcsFaultToleranceOptions {beside}")


def resources_once(bundle: Bundle) -> Iterator[Found]:
    """Ray's resources of a group told twice."""
    for cluster in bundle.clusters():
        for group in (cluster.head, *cluster.groups):
            both = [key for key in _TWICE if key in group.get("rayStartParams", {})]
            if group.get("resources") and both:
                yield Found(
                    _group(cluster, group),
                    f"resources beside rayStartParams {', '.join(both)}; expected one of both",
                )


def start_parameters(bundle: Bundle) -> Iterator[Found]:
    """Values of rayStartParams that are no texts, labels, which have a key of their own, and what
    is no option of ``ray start``."""
    for cluster in bundle.clusters():
        for group in (cluster.head, *cluster.groups):
            for key, value in group.get("rayStartParams", {}).items():
                if f"--{key}" not in _ray_start_options():
                    yield Found(
                        _group(cluster, group), f"rayStartParams.{key} is no option of 'ray start'"
                    )
                if not isinstance(value, str):
                    yield Found(
                        _group(cluster, group),
                        f'rayStartParams.{key} is {value!r}; expected a text: "{value}"',
                    )
                if key == "labels":
                    yield Found(
                        _group(cluster, group), "rayStartParams.labels; labels of the group say it"
                    )


def replicas(bundle: Bundle) -> Iterator[Found]:
    """A group whose least, present and most replicas do not go together."""
    for cluster in bundle.clusters():
        for group in cluster.groups:
            least, most = group.get("minReplicas"), group.get("maxReplicas")
            if not cluster.autoscaled and (least is None or most is None):
                yield Found(
                    _group(cluster, group),
                    "minReplicas and maxReplicas are both needed without the autoscaler",
                )
            given = [n for n in (least, group.get("replicas"), most) if n is not None]
            if given != sorted(given) or any(n < 0 for n in given):
                yield Found(
                    _group(cluster, group),
                    f"minReplicas, replicas, maxReplicas are {', '.join(map(str, given))}; "
                    "expected each to be at least the one before it",
                )


def ray_version(bundle: Bundle) -> Iterator[Found]:
    """A rayVersion that is not the image's, or too old for tokens."""
    for cluster in bundle.clusters():
        given = str(cluster.spec.get("rayVersion", ""))
        if given != version("ray"):
            yield Found(
                str(cluster.owner),
                f"rayVersion is '{given}'; the image has Ray {version('ray')} (constraints.txt)",
            )
        numbers = tuple(int(part) for part in re.findall(r"\d+", given)[:2])
        if _token(cluster) and numbers < _AUTH_SINCE:
            yield Found(str(cluster.owner), f"authOptions needs Ray 2.52; rayVersion is '{given}'")


def token(bundle: Bundle) -> Iterator[Found]:
    """A Ray cluster that takes commands from whoever reaches it."""
    for cluster in bundle.clusters():
        if not _token(cluster):
            yield Found(
                str(cluster.owner),
                "authOptions.mode is not token: whoever reaches the dashboard may run anything",
            )


def gates(bundle: Bundle) -> Iterator[Found]:
    """Keys that need a feature gate which is off by default."""
    for cluster in bundle.clusters():
        found = [key for key in _GATED if key in cluster.spec]
        if within(cluster.spec, "gcsFaultToleranceOptions", "backend") == "rocksdb":
            found.append("gcsFaultToleranceOptions.backend: rocksdb")
        found += ["suspend of a group" for group in cluster.groups if group.get("suspend")]
        for key in found:
            yield Found(str(cluster.owner), f"{key} needs a feature gate that is off by default")
    for job in bundle.of_kind("RayJob"):
        if "deletionStrategy" in job.spec:
            yield Found(str(job), "deletionStrategy needs a feature gate that is off by default")


def idle_head(bundle: Bundle) -> Iterator[Found]:
    """A head that would be given work, or pays for a GPU."""
    for cluster in bundle.clusters():
        cpus = within(cluster.head, "rayStartParams", "num-cpus")
        if cpus != "0":
            yield Found(
                str(cluster.owner), f'the head has rayStartParams.num-cpus {cpus!r}; expected "0"'
            )
        limits: Body = within(_main(cluster.head), "resources", "limits", default={})
        if any(name.endswith("gpu") for name in limits):
            yield Found(str(cluster.owner), "the head asks for a GPU; only workers use one")


@cache
def _ray_start_options() -> frozenset[str]:
    # late: it takes a second
    from ray.scripts.scripts import start

    return frozenset(option for parameter in start.params for option in parameter.opts)


def _token(cluster: RayCluster) -> bool:
    return bool(within(cluster.spec, "authOptions", "mode") == "token")


def _main(group: Body) -> Body:
    containers: Any = within(group, "template", "spec", "containers", default=())
    return containers[0] if containers else {}


def _group(cluster: RayCluster, group: Body) -> str:
    return f"{cluster.owner}: group {group.get('groupName', 'head')}"


OPERATOR_RULES: dict[str, Rule] = {
    "ray-name": names,
    "ray-suspend": suspend,
    "ray-deletion": deletion,
    "ray-submission": submission,
    "ray-restart-policy": restart_policy,
    "ray-autoscaler-v2": second_autoscaler,
    "ray-redis-once": redis_once,
    "ray-resources-once": resources_once,
    "ray-start-params": start_parameters,
    "ray-replicas": replicas,
    "ray-version": ray_version,
    "ray-token": token,
    "ray-gates": gates,
    "ray-idle-head": idle_head,
}
