"""Objects of the Prometheus operator against its schemas, strictly: an unknown field is an error.

The CRDs themselves are not at hand: k8s/crds/README.md says where the schemas are from, and what
they lack.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.crd_schemas import FOLDER, strict

GROUP = "monitoring.coreos.com"


def known_fields(bundle: Bundle) -> Iterator[Found]:
    """Unknown kinds and fields, wrong types and forms, missing fields."""
    for one in bundle.manifests:
        if one.api_version.partition("/")[0] != GROUP:
            continue
        validator = _validators().get((one.api_version, one.kind))
        if validator is None:
            yield Found(str(one), f"no schema in k8s/crds is of {one.api_version} {one.kind}")
            continue
        for error in validator.iter_errors(one.body):
            path = ".".join(str(part) for part in error.absolute_path) or "the object"
            yield Found(str(one), f"{path}: {error.message[:300]}")


@cache
def _validators() -> Mapping[tuple[str, str], Draft202012Validator]:
    """By (apiVersion, kind)."""
    version = f"{GROUP}/v1"
    schemas: dict[str, Any] = json.loads((FOLDER / f"{GROUP}_v1.json").read_text())
    return {
        (version, kind): Draft202012Validator(strict(schema)) for kind, schema in schemas.items()
    }


MONITORING_RULES: dict[str, Rule] = {"monitoring-schema": known_fields}
