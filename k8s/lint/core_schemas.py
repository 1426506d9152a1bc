"""Objects of Kubernetes itself, and the pods inside custom ones, against Kubernetes' own schemas.

The schemas are those of the package kubernetes-validate, in their strict form: an unknown field is
an error. Held against the oldest version that the manifests are for and the newest that we know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.crd_schemas import groups
from k8s.lint.manifest import Body
from k8s.lint.monitoring_schemas import GROUP as MONITORING

VERSIONS = ("1.33", "1.37")


def known_fields(bundle: Bundle) -> Iterator[Found]:
    """Unknown kinds and fields, wrong types, missing fields; of pod templates too."""
    for one in bundle.manifests:
        if one.api_version.partition("/")[0] not in {*groups(), MONITORING}:
            yield from _refused(str(one), one.body)
    for pod in bundle.pods("head", "worker", "submitter"):
        name = {"name": "template"}
        body = {"apiVersion": "v1", "kind": "Pod", **pod.template}
        yield from _refused(str(pod), body | {"metadata": {**body.get("metadata", {}), **name}})


def _refused(where: str, body: Body) -> Iterator[Found]:
    for version in VERSIONS:
        validator = _validator(version, str(body.get("apiVersion")), str(body.get("kind")))
        if validator is None:
            what = f"{body.get('apiVersion')} {body.get('kind')}"
            yield Found(where, f"Kubernetes {version} has no {what}")
            continue
        for error in validator.iter_errors(body):
            path = ".".join(str(part) for part in error.absolute_path) or "the object"
            yield Found(where, f"{path}: {error.message[:300]} (Kubernetes {version})")


@cache
def _validator(version: str, api_version: str, kind: str) -> Draft202012Validator | None:
    """None where that version has no such kind."""
    # rbac.authorization.k8s.io/v1 is rbac-v1 in the names of the files
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = _schema(version, f"{kind.lower()}-{group}.json")
    if schema is None:
        return None
    resources = [Resource.from_contents(one) for one in (schema, _definitions(version))]
    registry: Registry[Any] = resources @ Registry()
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Any:
    return _schema(version, "_definitions.json")


def _schema(version: str, name: str) -> Any:
    """A schema of the package, None where there is none of that name."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    path = folder / name
    return json.loads(path.read_text()) if path.is_file() else None


CORE_RULES: dict[str, Rule] = {"core-schema": known_fields}
