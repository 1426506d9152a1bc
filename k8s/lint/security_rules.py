"""What a platform team refuses on first sight: Pod Security 'restricted', and a little more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, Pod, ray_cluster, within
from k8s.lint.quantity import quantity

_HOST = ("hostNetwork", "hostPID", "hostIPC")
_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|CREDENTIAL|API_KEY")
_RESOURCES = ("cpu", "memory")
_DISK = "ephemeral-storage"
_GI = 2**30
_WRITABLE = ("/tmp", "/home/imagemill", "/dev/shm")
"""What Ray, torch and the hub's client write to, in an image whose own files nobody may change."""


def unprivileged_pods(bundle: Bundle) -> Iterator[Found]:
    """A pod that runs as root, without seccomp, or reaches into its node."""
    for pod in bundle.pods():
        context: Body = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
            yield Found(str(pod), "expected securityContext.runAsNonRoot: true and a runAsUser")
        if within(context, "seccompProfile", "type") != "RuntimeDefault":
            yield Found(str(pod), "expected securityContext.seccompProfile.type: RuntimeDefault")
        for key in _HOST:
            if pod.spec.get(key):
                yield Found(str(pod), f"{key} reaches into the node")
        for volume in pod.spec.get("volumes", ()):
            if "hostPath" in volume:
                yield Found(str(pod), f"volume {volume['name']} is a hostPath of the node")


def unprivileged_containers(bundle: Bundle) -> Iterator[Found]:
    """A container that may gain rights or change its own files."""
    for where, container in _containers(bundle):
        context: Body = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield Found(where, "expected securityContext.allowPrivilegeEscalation: false")
        if context.get("privileged"):
            yield Found(where, "is privileged")
        if context.get("readOnlyRootFilesystem") is not True:
            yield Found(where, "expected securityContext.readOnlyRootFilesystem: true")
        if "ALL" not in within(context, "capabilities", "drop", default=()):
            yield Found(where, "expected securityContext.capabilities.drop: [ALL]")
        if within(context, "capabilities", "add", default=()):
            yield Found(where, "adds capabilities")


def resources(bundle: Bundle) -> Iterator[Found]:
    """A container without requests or limits, or that asks for more than it may have."""
    for where, container in _containers(bundle):
        requests: Body = within(container, "resources", "requests", default={})
        limits: Body = within(container, "resources", "limits", default={})
        for name in _RESOURCES:
            if name not in requests or name not in limits:
                yield Found(where, f"expected resources.requests.{name} and limits.{name}")
        for name, asked in requests.items():
            if name in limits and quantity(asked) > quantity(limits[name]):
                yield Found(where, f"requests {asked} {name}, above its limit {limits[name]}")


def scratch(bundle: Bundle) -> Iterator[Found]:
    """Folders for writing without an end, or that hold more than the pod may write: it is evicted
    before they are full."""
    for pod in bundle.pods():
        folders = [one for one in pod.spec.get("volumes", ()) if "emptyDir" in one]
        for volume in folders:
            if "sizeLimit" not in (volume["emptyDir"] or {}):
                yield Found(str(pod), f"emptyDir '{volume['name']}' has no sizeLimit")
        held = sum(
            quantity(one["emptyDir"].get("sizeLimit", 0))
            for one in folders
            if one["emptyDir"] and one["emptyDir"].get("medium") != "Memory"
        )
        limits = [
            within(one, "resources", "limits", _DISK) for one in pod.spec.get("containers", ())
        ]
        if folders and None in limits:
            yield Found(str(pod), f"expected resources.limits.{_DISK}")
        elif held > sum(quantity(one) for one in limits):
            yield Found(
                str(pod),
                f"its emptyDirs hold {float(held) / _GI:g}Gi, above its limits.{_DISK}",
            )


def secrets(bundle: Bundle) -> Iterator[Found]:
    """A secret in plain sight: an object that holds one, or a variable with its value."""
    for one in bundle.of_kind("Secret"):
        if one.body.get("data") or one.body.get("stringData"):
            yield Found(str(one), "holds a secret; make it outside and list it in external.yaml")
    for where, container in _containers(bundle):
        for variable in container.get("env", ()):
            if _SECRET.search(variable["name"].upper()) and "value" in variable:
                yield Found(where, f"{variable['name']} has a literal value; use valueFrom")
    for settings in bundle.of_kind("ConfigMap"):
        for name in settings.body.get("data", {}):
            if _SECRET.search(name.upper()):
                yield Found(str(settings), f"{name} belongs in a Secret")


def accounts(bundle: Bundle) -> Iterator[Found]:
    """A pod with the default account, or with a token that it does not need."""
    for pod in bundle.pods():
        cluster = ray_cluster(pod.owner)
        if pod.spec.get("serviceAccountName", "default") == "default":
            yield Found(str(pod), "expected a serviceAccountName of its own")
        needed = pod.role == "head" and cluster is not None and cluster.autoscaled
        mounted = pod.spec.get("automountServiceAccountToken", True)
        if mounted and not needed:
            yield Found(str(pod), "expected automountServiceAccountToken: false")
        if needed and not mounted:
            yield Found(str(pod), "the autoscaler needs automountServiceAccountToken: true")
    for role in bundle.of_kind("Role", "ClusterRole"):
        for rule in role.body.get("rules", ()):
            if "*" in (*rule.get("verbs", ()), *rule.get("resources", ())):
                yield Found(str(role), "gives rights by '*'")


def writable(bundle: Bundle) -> Iterator[Found]:
    """A Ray container that cannot write where Ray, torch or the hub's client must."""
    for pod in bundle.pods("head", "worker"):
        mounted = {mount["mountPath"] for mount in pod.main.get("volumeMounts", ())}
        for path in _WRITABLE:
            if path not in mounted:
                yield Found(str(pod), f"nothing is mounted at {path}, which must be writable")


def restricted_namespaces(bundle: Bundle) -> Iterator[Found]:
    """A namespace that would take pods with more rights, or objects in none."""
    for one in bundle.of_kind("Namespace"):
        if one.labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield Found(
                str(one), "expected the label pod-security.kubernetes.io/enforce=restricted"
            )


def _containers(bundle: Bundle) -> Iterator[tuple[str, Body]]:
    """Every container, the autoscaler that KubeRay adds among them."""
    for pod in bundle.pods():
        yield from ((_place(pod, container), container) for container in pod.containers)
    for cluster in bundle.clusters():
        if cluster.autoscaled:
            options: Any = cluster.spec.get("autoscalerOptions", {})
            yield f"{cluster.owner}: autoscaler", options


def _place(pod: Pod, container: Body) -> str:
    return f"{pod}: container {container.get('name')}"


SECURITY_RULES: dict[str, Rule] = {
    "pod-unprivileged": unprivileged_pods,
    "container-unprivileged": unprivileged_containers,
    "container-resources": resources,
    "scratch-fits": scratch,
    "no-secrets": secrets,
    "service-account": accounts,
    "writable-folders": writable,
    "namespace-restricted": restricted_namespaces,
}
