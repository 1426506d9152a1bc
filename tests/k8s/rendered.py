"""The overlays as they are rendered, once a process, and changed copies of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

from k8s.lint.bundle import Bundle, external
from k8s.lint.manifest import Manifest
from k8s.lint.render import ROOT, render

Change = Callable[[list[dict[str, Any]]], None]
"""Changes the bodies of an overlay's objects in place."""


@cache
def rendered(name: str) -> Bundle:
    """An overlay or example below k8s/."""
    return Bundle(name=name, manifests=render(ROOT / name), external=external())


def changed(name: str, *changes: Change) -> Bundle:
    """A copy of an overlay with changes."""
    bodies = [copy.deepcopy(dict(one.body)) for one in rendered(name).manifests]
    for change in changes:
        change(bodies)
    manifests = tuple(Manifest(body=body) for body in bodies)
    return Bundle(name=name, manifests=manifests, external=external())


def put(kind: str, path: str, value: Any, *, name: str | None = None) -> Change:
    """Set what lies at ``path`` of the one object of that kind: keys and list positions between
    slashes, where ``~`` means a slash within a key and ``-`` the end of a list."""

    def change(bodies: list[dict[str, Any]]) -> None:
        holder, last = _holder(bodies, kind, path, name)
        if isinstance(holder, list) and last == "-":
            holder.append(value)
        else:
            holder[int(last) if isinstance(holder, list) else last] = value

    return change


def drop(kind: str, path: str, *, name: str | None = None) -> Change:
    """Remove what lies at ``path``; it must be there."""

    def change(bodies: list[dict[str, Any]]) -> None:
        holder, last = _holder(bodies, kind, path, name)
        del holder[int(last) if isinstance(holder, list) else last]

    return change


def say(old: str, new: str) -> Change:
    """Replace words of the RayJob's command; they must be there."""

    def change(bodies: list[dict[str, Any]]) -> None:
        (job,) = (body for body in bodies if body["kind"] == "RayJob")
        line = job["spec"]["entrypoint"]
        assert old in line
        job["spec"]["entrypoint"] = line.replace(old, new)

    return change


def remove(kind: str, name: str) -> Change:
    """Remove an object; it must be there."""

    def change(bodies: list[dict[str, Any]]) -> None:
        before = len(bodies)
        bodies[:] = [b for b in bodies if not (b["kind"] == kind and b["metadata"]["name"] == name)]
        assert len(bodies) == before - 1

    return change


def _holder(
    bodies: list[dict[str, Any]], kind: str, path: str, name: str | None
) -> tuple[Any, str]:
    (found,) = (
        body for body in bodies if body["kind"] == kind and name in (None, body["metadata"]["name"])
    )
    holder: Any = found
    *way, last = [part.replace("~", "/") for part in path.split("/")]
    for part in way:
        holder = holder[int(part) if isinstance(holder, list) else part]
    return holder, last
