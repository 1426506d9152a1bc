"""The checker's look at the money: does the ledger close, to the last unit?"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.bucket import Bucket

_NS_PER_HOUR = 3600 * 10**9
_KINDS = {"wasted", "overhead", "idle"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the lines add up to. ``amount_nano`` is in 1e-9 currency units."""

    amount_nano: int
    wasted_s: float
    problems: tuple[str, ...]


def check_books(
    bucket: Bucket, *, used: Sequence[Mapping[str, Any]], stamps: Mapping[str, Mapping[str, Any]]
) -> Books:
    """Every line of every worker against its lifetime, at the price that the job names.

    Args:
        used: the lines of the images that count.
        stamps: each worker's newest evidence of its lifetime.
    """
    problems: list[str] = []
    job = json.loads(bucket.read("job.json") or b"{}")
    nano_per_hour = Fraction(job["config"]["pricing"]["price_per_hour"]) * 10**9
    others = _lines(bucket, problems)
    lines = [*used, *others]
    twice = [
        name for name, count in Counter(line["line_id"] for line in lines).items() if count > 1
    ]
    if twice:
        problems.append(f"{len(twice)} lines are there twice, the first is {twice[0]}")
    strange = {line["worker"] for line in lines} - set(stamps)
    if strange:
        problems.append(f"lines are charged to workers that never lived: {sorted(strange)}")
    if any(line["gpu_ns"] < 0 or line["amount_nano"] < 0 for line in lines):
        problems.append("a line is negative")
    for worker, stamp in stamps.items():
        own = [line for line in lines if line["worker"] == worker]
        kinds = Counter(line["kind"] for line in own if line["kind"] != "used")
        if kinds != Counter(_KINDS):
            problems.append(f"{worker} has the lines {dict(kinds)} beside its images")
        price = _rounded(nano_per_hour * stamp["lifetime_ns"] / _NS_PER_HOUR)
        amount = sum(line["amount_nano"] for line in own)
        time_ns = sum(line["gpu_ns"] for line in own)
        if time_ns != stamp["lifetime_ns"]:
            problems.append(f"{worker} lived {stamp['lifetime_ns']} ns; its lines say {time_ns}")
        if amount != price:
            problems.append(f"{worker} costs {price} nano; its lines say {amount}")
    return Books(
        amount_nano=int(sum(line["amount_nano"] for line in lines)),
        wasted_s=sum(line["gpu_ns"] for line in others if line["kind"] == "wasted") / 1e9,
        problems=tuple(problems),
    )


def _lines(bucket: Bucket, problems: list[str]) -> list[dict[str, Any]]:
    key = "ledger/workers.parquet"
    data = bucket.read(key)
    if data is None:
        problems.append(f"{key} is missing")
        return []
    table = pq.read_table(io.BytesIO(data))
    for name in ("gpu_ns", "amount_nano"):
        if not pa.types.is_int64(table.schema.field(name).type):
            problems.append(f"{key}: {name} is no integer")
    lines: list[dict[str, Any]] = table.to_pylist()
    return lines


def _rounded(amount: Fraction) -> int:
    """Half up."""
    return int(amount + Fraction(1, 2))
