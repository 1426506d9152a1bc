"""Custom objects against the CRDs that the operators bring: strictly, and by their CEL rules.

What an API server would drop without a word, an unknown field, is an error here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cel
import yaml
from jsonschema import Draft202012Validator

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Manifest

FOLDER = Path(__file__).parents[1] / "crds"
_FREE = "x-kubernetes-preserve-unknown-fields"
_RULES = "x-kubernetes-validations"


def known_fields(bundle: Bundle) -> Iterator[Found]:
    """Unknown fields, wrong types and values, missing fields."""
    for one in _custom(bundle):
        schema = _schema_of(one)
        if schema is None:
            yield Found(str(one), f"no CRD in k8s/crds has {one.api_version}")
            continue
        for error in _validator(one.api_version, one.kind).iter_errors(one.body):
            path = ".".join(str(part) for part in error.absolute_path) or "the object"
            yield Found(str(one), f"{path}: {error.message[:300]}")


def cel_rules(bundle: Bundle) -> Iterator[Found]:
    """What the CRDs say in CEL of an object that is made; rules about changes do not apply."""
    for one in _custom(bundle):
        schema = _schema_of(one)
        if schema is None:
            continue
        body = with_defaults(schema, copy.deepcopy(dict(one.body)))
        for path, rule, message in _broken(schema, body, ""):
            yield Found(str(one), f"{path or 'the object'}: {message or rule}")


def groups() -> frozenset[str]:
    """The API groups that k8s/crds describes."""
    return frozenset(api_version.partition("/")[0] for api_version, _ in _schemas())


def rule_count() -> int:
    """How many CEL rules of the stored versions there are to hold."""
    return sum(_count(schema) for schema in _schemas().values())


def with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """The value with the defaults that an API server fills in, in place."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                with_defaults(inner, value[name])
        if isinstance(schema.get("additionalProperties"), Mapping):
            for item in value.values():
                with_defaults(schema["additionalProperties"], item)
    elif isinstance(value, list):
        for item in value:
            with_defaults(schema.get("items", {}), item)
    return value


def strict(schema: Any) -> Any:
    """A schema that refuses what it does not name, wherever the API server would drop it."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {name: strict(value) for name, value in schema.items()}
    closed = "properties" in found and "additionalProperties" not in found
    if closed and not found.get(_FREE) and isinstance(schema["properties"], Mapping):
        found["additionalProperties"] = False
    return found


def _broken(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """(path, rule, message) of each rule that does not hold, at or below a value."""
    for one in schema.get(_RULES, ()):
        if "oldSelf" not in one["rule"] and not _holds(one["rule"], value):
            yield path, one["rule"], one.get("message", "")
    if isinstance(value, dict):
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(inner, Mapping):
                yield from _broken(inner, item, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _broken(schema.get("items", {}), item, f"{path}.{number}")


def _holds(rule: str, value: Any) -> bool:
    return cel.evaluate(rule, {"self": value}) is True


def _count(schema: Any) -> int:
    if isinstance(schema, list):
        return sum(_count(item) for item in schema)
    if not isinstance(schema, Mapping):
        return 0
    own = sum("oldSelf" not in one["rule"] for one in schema.get(_RULES, ()))
    return own + sum(_count(value) for name, value in schema.items() if name != _RULES)


def _custom(bundle: Bundle) -> Iterator[Manifest]:
    """The objects of groups that k8s/crds describes."""
    yield from (one for one in bundle.manifests if one.api_version.partition("/")[0] in groups())


def _schema_of(one: Manifest) -> Mapping[str, Any] | None:
    return _schemas().get((one.api_version, one.kind))


@cache
def _schemas() -> dict[tuple[str, str], Mapping[str, Any]]:
    """The schema of each stored version by (apiVersion, kind)."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        spec = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            if version["storage"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                found[key] = version["schema"]["openAPIV3Schema"]
    return found


@cache
def _validator(api_version: str, kind: str) -> Draft202012Validator:
    return Draft202012Validator(strict(_schemas()[api_version, kind]))


CRD_RULES: dict[str, Rule] = {
    "crd-schema": known_fields,
    "crd-cel": cel_rules,
}
