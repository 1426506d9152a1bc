"""One Kubernetes object as it is rendered, and where the pods in it are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from conf.errors import ConfigError

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One object. ``str`` names it as kubectl does."""

    body: Body

    @property
    def kind(self) -> str:
        """What it is, as ``RayJob``."""
        return str(self.body.get("kind", ""))

    @property
    def api_version(self) -> str:
        """Group and version, as ``ray.io/v1``."""
        return str(self.body.get("apiVersion", ""))

    @property
    def name(self) -> str:
        """Its name within kind and namespace."""
        return str(within(self.body, "metadata", "name", default=""))

    @property
    def labels(self) -> Mapping[str, str]:
        """Its own labels, not those of its pods."""
        return labels_of(self.body)

    @property
    def spec(self) -> Body:
        """What is asked for."""
        found: Body = within(self.body, "spec", default={})
        return found

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod template. ``role``: head, worker, submitter or other. ``group``: of Ray's workers."""

    owner: Manifest
    role: str
    template: Body
    group: Body

    @property
    def spec(self) -> Body:
        """The pod's spec."""
        found: Body = within(self.template, "spec", default={})
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        """The pod's labels."""
        return labels_of(self.template)

    @property
    def containers(self) -> tuple[Body, ...]:
        """Its containers, those that run first among them."""
        first, later = self.spec.get("initContainers", ()), self.spec.get("containers", ())
        return (*first, *later)

    @property
    def main(self) -> Body:
        """The first container, which KubeRay takes for Ray's."""
        found = self.spec.get("containers", ())
        return found[0] if found else {}

    def __str__(self) -> str:
        name = f" '{self.group['groupName']}'" if "groupName" in self.group else ""
        return f"{self.owner}: {self.role} pod{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """The Ray cluster that a RayJob brings along or a RayCluster is."""

    owner: Manifest
    spec: Body

    @property
    def head(self) -> Body:
        """The head's group."""
        found: Body = within(self.spec, "headGroupSpec", default={})
        return found

    @property
    def groups(self) -> tuple[Body, ...]:
        """The groups of workers."""
        return tuple(self.spec.get("workerGroupSpecs", ()))

    @property
    def autoscaled(self) -> bool:
        """Whether KubeRay puts Ray's autoscaler beside the head."""
        return bool(self.spec.get("enableInTreeAutoscaling", False))

    @property
    def autoscaler_v2(self) -> bool:
        """Whether that autoscaler is the second one."""
        version = within(self.spec, "autoscalerOptions", "version", default="v1")
        return self.autoscaled and version == "v2"


def parse(text: str) -> tuple[Manifest, ...]:
    """All objects of a rendered stream.

    Raises:
        ConfigError: a document is no object.
    """
    found = []
    for document in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ConfigError(
                f"a rendered document is {document!r}; expected an object with apiVersion and kind"
            )
        found.append(Manifest(body=document))
    return tuple(found)


def within(body: Any, *keys: str, default: Any = None) -> Any:
    """What lies below ``keys``; the default where the way ends before."""
    for key in keys:
        if not isinstance(body, Mapping) or key not in body:
            return default
        body = body[key]
    return body


def labels_of(body: Body) -> Mapping[str, str]:
    """The labels of an object or a template."""
    found: Mapping[str, str] = within(body, "metadata", "labels", default={})
    return found


def ray_cluster(manifest: Manifest) -> RayCluster | None:
    """The Ray cluster of an object, None for other kinds and jobs on a cluster that is there."""
    if manifest.kind == "RayCluster":
        return RayCluster(owner=manifest, spec=manifest.spec)
    if manifest.kind == "RayJob" and "rayClusterSpec" in manifest.spec:
        return RayCluster(owner=manifest, spec=manifest.spec["rayClusterSpec"])
    return None


def pods_of(manifest: Manifest) -> Iterator[Pod]:
    """Every pod template of an object."""
    cluster = ray_cluster(manifest)
    if cluster is not None:
        yield _pod(manifest, "head", cluster.head)
        for group in cluster.groups:
            yield _pod(manifest, "worker", group)
    if "submitterPodTemplate" in manifest.spec:
        yield Pod(
            owner=manifest,
            role="submitter",
            template=manifest.spec["submitterPodTemplate"],
            group={},
        )
    if manifest.kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        yield _pod(manifest, "other", manifest.spec)


def _pod(owner: Manifest, role: str, holder: Body) -> Pod:
    group = holder if role in ("head", "worker") else {}
    return Pod(owner=owner, role=role, template=holder.get("template", {}), group=group)
