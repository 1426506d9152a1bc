"""What one overlay renders to, and what is left to others to bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml

from k8s.lint.manifest import Manifest, Pod, RayCluster, pods_of, ray_cluster

EXTERNAL = Path(__file__).parents[1] / "external.yaml"


class Found(NamedTuple):
    """Where something is wrong, and what is wrong there and what to do."""

    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that is broken."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} [{self.rule}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The objects of one overlay. ``external``: (kind, name) of what others bring."""

    name: str
    manifests: tuple[Manifest, ...]
    external: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    def of_kind(self, *kinds: str) -> tuple[Manifest, ...]:
        """The objects of these kinds."""
        return tuple(one for one in self.manifests if one.kind in kinds)

    def has(self, kind: str, name: str) -> bool:
        """Whether such an object is here or is brought by others."""
        return (kind, name) in self.external or any(one.name == name for one in self.of_kind(kind))

    def clusters(self) -> Iterator[RayCluster]:
        """The Ray clusters."""
        for manifest in self.manifests:
            cluster = ray_cluster(manifest)
            if cluster is not None:
                yield cluster

    def pods(self, *roles: str) -> Iterator[Pod]:
        """The pod templates; only of these roles where some are given."""
        for manifest in self.manifests:
            yield from (pod for pod in pods_of(manifest) if not roles or pod.role in roles)


Rule = Callable[[Bundle], Iterator[Found]]


def external(path: Path = EXTERNAL) -> frozenset[tuple[str, str]]:
    """What the list of external objects names."""
    listed: list[Mapping[str, str]] = yaml.safe_load(path.read_text())
    return frozenset((one["kind"], one["name"]) for one in listed)
