"""An output's records as the checker reads them: JSON to plain values, and the rule of what counts.

Written from docs/output.md alone; nothing of the product is imported, so that an error there cannot
hide itself here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.bucket import Bucket

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A commit that counts. ``quarantine``: whether its rejected rows do."""

    key: str
    commit: Plain
    quarantine: bool

    def rows(self) -> list[int]:
        """Offsets of its committed rows, as often as it names them."""
        return _offsets(self.commit["rows"])

    def rejected(self) -> list[int]:
        """Offsets of its quarantined rows, whether they count or not."""
        return _offsets(self.commit["quarantined"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecords:
    """What counts of one shard. ``sealed`` false: it is not done."""

    sealed: bool
    epochs: int
    commits: tuple[Counted, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Every shard that was ever opened, and every worker's newest stamp."""

    shards: Mapping[int, ShardRecords]
    stamps: Mapping[str, Plain]
    problems: tuple[str, ...]


def read_records(bucket: Bucket) -> Records:
    """Fold the openings and commits: the newest opening's list counts, and while it is no seal,
    its own epoch's commits too."""
    problems: list[str] = []
    openings: dict[int, dict[int, Plain]] = {}
    for key in bucket.listing("leases/"):
        record = _json(bucket, key, problems)
        if record:
            openings.setdefault(record["shard_id"], {})[record["epoch"]] = record
    commits = {key: _json(bucket, key, problems) for key in bucket.listing("commits/")}
    shards: dict[int, ShardRecords] = {}
    for shard_id, epochs in openings.items():
        if sorted(epochs) != list(range(1, len(epochs) + 1)):
            problems.append(f"shard {shard_id} has the epochs {sorted(epochs)}, not 1 to the last")
        newest = epochs[max(epochs)]
        accepted = [(item["key"], item["quarantine"]) for item in newest["accepted"]]
        if not newest["sealed"]:
            accepted += [
                (key, True)
                for key, commit in commits.items()
                if commit and (commit["shard_id"], commit["epoch"]) == (shard_id, newest["epoch"])
            ]
        counted: list[Counted] = []
        for key, quarantine in accepted:
            if not commits.get(key):
                problems.append(f"{key} counts for shard {shard_id} but cannot be read")
            else:
                counted.append(Counted(key=key, commit=commits[key], quarantine=quarantine))
        shards[shard_id] = ShardRecords(
            sealed=newest["sealed"], epochs=len(epochs), commits=tuple(counted)
        )
    stamps = _newest_stamps(bucket, shards, problems)
    return Records(shards=shards, stamps=stamps, problems=tuple(problems))


def _newest_stamps(
    bucket: Bucket, shards: Mapping[int, ShardRecords], problems: list[str]
) -> dict[str, Plain]:
    found = [_json(bucket, key, problems) for key in bucket.listing("workers/")]
    found += [item.commit["stamp"] for shard in shards.values() for item in shard.commits]
    newest: dict[str, Plain] = {}
    for stamp in filter(None, found):
        before = newest.get(stamp["worker"])
        if before is None or _age(stamp) > _age(before):
            newest[stamp["worker"]] = stamp
    return newest


def _age(stamp: Plain) -> tuple[int, int]:
    return stamp["lifetime_ns"], stamp["seq"]


def _json(bucket: Bucket, key: str, problems: list[str]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(bucket.read(key) or b"")
    except ValueError as error:
        problems.append(f"{key} is not JSON: {error}")
        return {}
    return plain


def _offsets(ranges: Sequence[Sequence[int]]) -> list[int]:
    return [offset for start, end in ranges for offset in range(start, end)]
