"""What Kueue refuses, or never admits (Kueue 0.19)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, Manifest, ray_cluster, within
from k8s.lint.quantity import quantity

QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
ELASTIC = "kueue.x-k8s.io/elastic-job"
_VERSION = "kueue.x-k8s.io/v1beta2"
_MOST_GROUPS = 17
_AUTOSCALER: Mapping[str, str] = {"cpu": "500m", "memory": "512Mi"}
"""What KubeRay asks for its autoscaler where nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSet:
    """Pods that Kueue admits together, and what one of them requests."""

    name: str
    count: int
    requests: Mapping[str, Fraction]


def stored_version(bundle: Bundle) -> Iterator[Found]:
    """An object of a version that Kueue converts, and may stop to know."""
    for one in bundle.manifests:
        if one.api_version.startswith("kueue.x-k8s.io/") and one.api_version != _VERSION:
            yield Found(str(one), f"apiVersion is {one.api_version}; expected {_VERSION}")


def known_names(bundle: Bundle) -> Iterator[Found]:
    """Queues, flavors and priorities that nothing defines."""
    for job in _queued(bundle):
        if not bundle.has("LocalQueue", job.labels[QUEUE]):
            yield Found(str(job), f"label {QUEUE}={job.labels[QUEUE]}: there is no such LocalQueue")
        priority = job.labels.get(PRIORITY)
        if priority is not None and not bundle.has("WorkloadPriorityClass", priority):
            yield Found(
                str(job), f"label {PRIORITY}={priority}: there is no such WorkloadPriorityClass"
            )
    for queue in bundle.of_kind("LocalQueue"):
        if not bundle.has("ClusterQueue", str(queue.spec.get("clusterQueue"))):
            yield Found(
                str(queue), f"there is no ClusterQueue '{queue.spec.get('clusterQueue')}' for it"
            )
    for cluster_queue in bundle.of_kind("ClusterQueue"):
        for _, flavor in _flavors(cluster_queue):
            if not bundle.has("ResourceFlavor", flavor["name"]):
                yield Found(str(cluster_queue), f"there is no ResourceFlavor '{flavor['name']}'")


def admissible(bundle: Bundle) -> Iterator[Found]:
    """A RayJob that Kueue's webhook refuses, or that would start without waiting."""
    for job in _queued(bundle):
        spec = job.spec
        groups = [group.get("groupName") for group in _groups(job)]
        if not spec.get("suspend"):
            yield Found(str(job), "a job in a queue begins suspended; expected suspend: true")
        if not spec.get("shutdownAfterJobFinishes"):
            yield Found(str(job), "a job in a queue needs shutdownAfterJobFinishes: true")
        if "clusterSelector" in spec:
            yield Found(str(job), "a job in a queue brings its own cluster: no clusterSelector")
        if len(groups) > _MOST_GROUPS:
            yield Found(
                str(job), f"{len(groups)} worker groups; Kueue takes {_MOST_GROUPS} at most"
            )
        if "head" in groups:
            yield Found(str(job), "a worker group named 'head' collides with the head's pod set")


def elastic(bundle: Bundle) -> Iterator[Found]:
    """An autoscaler that Kueue knows nothing of."""
    for job in _queued(bundle):
        cluster = ray_cluster(job)
        annotations = within(job.body, "metadata", "annotations", default={})
        if cluster and cluster.autoscaled and annotations.get(ELASTIC) != "true":
            yield Found(
                str(job),
                f'enableInTreeAutoscaling in a queue needs the annotation {ELASTIC}: "true"',
            )


def quota(bundle: Bundle) -> Iterator[Found]:
    """A job that no quota can ever hold."""
    for job in _queued(bundle):
        queue = _queue_of(bundle, job)
        if queue is None:
            continue
        covered = {name for group, _ in _flavors(queue) for name in group["coveredResources"]}
        sets = pod_sets(job)
        lacking = sorted({name for one in sets for name in one.requests} - covered)
        for name in lacking:
            yield Found(str(job), f"requests {name}, which {queue} does not cover: never admitted")
        if not lacking:
            yield from _unfitting(job, queue, sets)


def pod_sets(job: Manifest) -> tuple[PodSet, ...]:
    """What Kueue counts of a RayJob."""
    found = []
    cluster = ray_cluster(job)
    if cluster is not None:
        asked = _asked(cluster.head.get("template", {}))
        if cluster.autoscaled:
            asked.append(
                within(cluster.spec, "autoscalerOptions", "resources", "requests") or _AUTOSCALER
            )
        head = _sum(asked)
        found.append(PodSet(name="head", count=1, requests=head))
        for group in cluster.groups:
            count = group.get("replicas", 1) * group.get("numOfHosts", 1)
            requests = _sum(_asked(group.get("template", {})))
            found.append(PodSet(name=group["groupName"], count=count, requests=requests))
    if job.spec.get("submissionMode", "K8sJobMode") == "K8sJobMode":
        submitter = _sum(_asked(job.spec.get("submitterPodTemplate", {})))
        found.append(PodSet(name="submitter", count=1, requests=submitter))
    return tuple(found)


def _unfitting(job: Manifest, queue: Manifest, sets: tuple[PodSet, ...]) -> Iterator[Found]:
    """Pod sets that fit in no flavor, each taking the first one that has room."""
    room = {flavor["name"]: _most(flavor) for _, flavor in _flavors(queue)}
    for one in sets:
        wanted = {name: one.count * number for name, number in one.requests.items()}
        for left in room.values():
            if all(left.get(name, 0) >= number for name, number in wanted.items()):
                left.update({name: left[name] - number for name, number in wanted.items()})
                break
        else:
            asked = ", ".join(f"{float(number):g} {name}" for name, number in wanted.items())
            yield Found(
                str(job), f"{one.name} asks for {asked}; no flavor of {queue} can ever have it"
            )


def _most(flavor: Body) -> dict[str, Fraction]:
    """Quota with all that may be borrowed; without a limit the quota alone counts."""
    return {
        one["name"]: quantity(one["nominalQuota"]) + quantity(one.get("borrowingLimit", 0))
        for one in flavor["resources"]
    }


def _asked(template: Body) -> list[Body]:
    """The requests of each container."""
    containers = within(template, "spec", "containers", default=())
    return [within(one, "resources", "requests", default={}) for one in containers]


def _sum(asked: Iterable[Body]) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for requests in asked:
        for name, given in requests.items():
            found[name] = found.get(name, Fraction(0)) + quantity(given)
    return found


def _queued(bundle: Bundle) -> Iterator[Manifest]:
    yield from (job for job in bundle.of_kind("RayJob") if QUEUE in job.labels)


def _groups(job: Manifest) -> tuple[Body, ...]:
    cluster = ray_cluster(job)
    return cluster.groups if cluster else ()


def _queue_of(bundle: Bundle, job: Manifest) -> Manifest | None:
    """The ClusterQueue behind a job's LocalQueue, where it is here."""
    locals_ = {one.name: one.spec.get("clusterQueue") for one in bundle.of_kind("LocalQueue")}
    wanted = locals_.get(job.labels[QUEUE])
    return next((one for one in bundle.of_kind("ClusterQueue") if one.name == wanted), None)


def _flavors(queue: Manifest) -> Iterator[tuple[Body, Body]]:
    """Each flavor with its resource group."""
    for group in queue.spec.get("resourceGroups", ()):
        yield from ((group, flavor) for flavor in group["flavors"])


KUEUE_RULES: dict[str, Rule] = {
    "kueue-version": stored_version,
    "kueue-names": known_names,
    "kueue-admissible": admissible,
    "kueue-elastic": elastic,
    "kueue-quota": quota,
}
