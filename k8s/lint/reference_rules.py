"""Names that lead somewhere: images, objects, volumes, pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, Manifest, Pod, within

_EXACT = re.compile(r"v?\d+\.\d+\.\d+([.+_-][\w.+-]*)?")
_COMPONENT = "app.kubernetes.io/component"
_NAMED = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMap": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}
_BY_KEY = {
    "serviceAccountName": "ServiceAccount",
    "priorityClassName": "PriorityClass",
    "claimName": "PersistentVolumeClaim",
    "secretName": "Secret",
}


def exact_images(bundle: Bundle) -> Iterator[Found]:
    """An image that is another one tomorrow: no tag, a word, or a version without its last part."""
    for pod in bundle.pods():
        for container in pod.containers:
            image = str(container.get("image", ""))
            before, _, digest = image.partition("@")
            tag = before.rpartition("/")[2].partition(":")[2]
            if not digest.startswith("sha256:") and not _EXACT.fullmatch(tag):
                yield Found(
                    f"{pod}: container {container.get('name')}",
                    f"image '{image}'; expected a digest or an exact tag such as 1.2.3",
                )


def known_objects(bundle: Bundle) -> Iterator[Found]:
    """An object that is named and neither here nor on the list of what others bring."""
    for one in bundle.manifests:
        for kind, name in sorted(named_objects(one)):
            if not bundle.has(kind, name):
                yield Found(
                    str(one),
                    f"names {kind} '{name}', which is not in the overlay; define it, or list it in "
                    "k8s/external.yaml",
                )


def named_objects(one: Manifest) -> frozenset[tuple[str, str]]:
    """(kind, name) of all that an object names."""
    return frozenset(_references(one.body.get("spec", {})))


def known_keys(bundle: Bundle) -> Iterator[Found]:
    """A key that a ConfigMap of the overlay does not have."""
    for one in bundle.manifests:
        for reference in _blocks(one.body.get("spec", {}), "configMapKeyRef"):
            for settings in bundle.of_kind("ConfigMap"):
                if settings.name == reference.get("name") and reference.get(
                    "key"
                ) not in settings.body.get("data", {}):
                    yield Found(str(one), f"{settings} has no key '{reference.get('key')}'")


def mounts(bundle: Bundle) -> Iterator[Found]:
    """A mount without its volume, a volume that nobody mounts, or one place used twice."""
    for pod in bundle.pods():
        volumes = [volume["name"] for volume in pod.spec.get("volumes", ())]
        claims = pod.owner.spec.get("volumeClaimTemplates", ())
        volumes += [claim["metadata"]["name"] for claim in claims]
        used = set()
        for container in (*pod.containers, *_autoscaler(pod)):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
            for path in sorted({path for path in paths if paths.count(path) > 1}):
                yield Found(str(pod), f"mounts two volumes at {path}")
            for mount in container.get("volumeMounts", ()):
                used.add(mount["name"])
                if mount["name"] not in volumes:
                    yield Found(str(pod), f"mounts '{mount['name']}', which is no volume of it")
        for name in volumes:
            if name not in used:
                yield Found(str(pod), f"nobody mounts its volume '{name}'")


def selected_pods(bundle: Bundle) -> Iterator[Found]:
    """A selector that matches no pod, of the overlay or of those who use it."""
    pods = [pod.labels for pod in bundle.pods()]
    pods += [{_COMPONENT: name} for kind, name in bundle.external if kind == "Pod"]
    for one in bundle.of_kind("Service", "NetworkPolicy", "PodDisruptionBudget"):
        selector = _selector(one)
        if selector and not any(matches(selector, labels) for labels in pods):
            yield Found(str(one), "its selector matches no pod of the overlay")


def ports(bundle: Bundle) -> Iterator[Found]:
    """A Service that leads to a port which its pods do not name."""
    for service in bundle.of_kind("Service"):
        chosen = [pod for pod in bundle.pods() if matches(_selector(service), pod.labels)]
        names = {
            given
            for pod in chosen
            for container in pod.containers
            for port in container.get("ports", ())
            for given in (port.get("name"), port.get("containerPort"))
        }
        for port in service.spec.get("ports", ()):
            target = port.get("targetPort", port.get("port"))
            if chosen and target not in names:
                yield Found(str(service), f"leads to port {target}, which its pods do not have")


def matches(selector: Body, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses these labels. An empty one chooses all."""
    plain = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    return plain and all(_holds(one, labels) for one in selector.get("matchExpressions", ()))


def _holds(expression: Body, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _selector(one: Manifest) -> Body:
    """What an object selects; {} means all, or nothing for a Service."""
    if one.kind == "Service":
        return {"matchLabels": one.spec.get("selector", {})}
    found: Body = one.spec.get("podSelector" if one.kind == "NetworkPolicy" else "selector", {})
    return found


def _autoscaler(pod: Pod) -> Iterator[Body]:
    """The container that KubeRay adds to a head, which mounts the head's volumes."""
    if pod.role == "head":
        cluster = pod.owner.spec.get("rayClusterSpec", pod.owner.spec)
        if "autoscalerOptions" in cluster:
            yield cluster["autoscalerOptions"]


def _references(body: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of all that is named anywhere below."""
    if isinstance(body, list):
        for item in body:
            yield from _references(item)
    if not isinstance(body, Mapping):
        return
    for key, value in body.items():
        if key in _NAMED and isinstance(value, Mapping) and value.get("name"):
            yield _NAMED[key], value["name"]
        elif key in _BY_KEY and isinstance(value, str):
            yield _BY_KEY[key], value
        yield from _references(value)


def _blocks(body: Any, key: str) -> Iterator[Body]:
    """Every mapping below that stands under ``key``."""
    if isinstance(body, list):
        for item in body:
            yield from _blocks(item, key)
    if isinstance(body, Mapping):
        if isinstance(body.get(key), Mapping):
            yield within(body, key)
        for value in body.values():
            yield from _blocks(value, key)


REFERENCE_RULES: dict[str, Rule] = {
    "image-exact": exact_images,
    "reference-known": known_objects,
    "config-key-known": known_keys,
    "mounts": mounts,
    "selector-matches": selected_pods,
    "service-port": ports,
}
