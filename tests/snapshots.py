"""A run at a glance, for tests that look at one part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster.coordinator import Counts, Snapshot

_BEGUN = Snapshot(
    shards=2,
    sealed=0,
    held=1,
    counts=Counts(),
    made=0,
    occupied=0,
    offered=0,
    lifetime_ns=0,
    phases=(),
    silent=(),
    preempted=(),
    commits=0,
    finished=False,
)


def snapshot_of(**changes: Any) -> Snapshot:
    """A run of two shards that has only begun, but for what is given."""
    return replace(_BEGUN, **changes)
