"""Outputs whose ledger is what a test says: real records around made-up lines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster import layout
from cluster.ledger import LEDGER
from cluster.records import ObjectRef
from cluster.store import Store
from cluster.tables import to_parquet
from tests.small_jobs import prepare_small_job
from tests.unit.shard_records import commit_of, now, opened

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR_NS = 3600 * 10**9
_PRICE = 3_600_000_000
"""3.60 USD an hour: a thousandth of a USD a second."""


def image_line(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A used line: one second of an H100 for an image, 0.001 USD."""
    start = changes.pop("start", NOON)
    line = {
        "line_id": f"w0:{number}-0",
        "kind": "used",
        "job": "posters",
        "project": "shop",
        "tags": [("customer", "acme")],
        "worker": "w0",
        "node": "node-a",
        "image_id": f"{number}-0",
        "row_id": number,
        "model": "sdxl",
        "sampler": "euler",
        "width": 1024,
        "height": 1024,
        "steps": 20,
        "period_start": start,
        "period_end": start + timedelta(seconds=1),
        "gpu_ns": 10**9,
        "amount_nano": 1_000_000,
        "currency": "USD",
        "provider": "aws",
        "region": "us-east-1",
        "instance_type": "p5.4xlarge",
        "purchase_option": "on-demand",
        "price_nano_per_hour": _PRICE,
        "price_version": "2026-03",
        "price_digest": "abc123",
    }
    return {**line, **changes}


def worker_line(kind: str = "idle", **changes: Any) -> dict[str, Any]:
    """A line of a worker's other time: one second, 0.001 USD."""
    none = dict.fromkeys(
        ("image_id", "row_id", "model", "sampler", "width", "height", "steps"), None
    )
    return image_line(**{**none, "line_id": f"w0:{kind}", "kind": kind, **changes})


def other_line(kind: str = "storage", **changes: Any) -> dict[str, Any]:
    """A line that is no worker's time: two GB-months at 0.02 USD."""
    none = dict.fromkeys(
        ("worker", "node", "gpu_ns", "price_nano_per_hour", "instance_type", "purchase_option")
    )
    mine = {
        "quantity": 2,
        "unit": "GB-month",
        "price_nano_per_unit": 20_000_000,
        "amount_nano": 40_000_000,
    }
    return worker_line(kind, **{**none, **mine, **changes})


def made_output(
    folder: Path,
    images: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]] = (),
    *,
    finished: bool = True,
    **config: Any,
) -> Store:
    """An output at ``folder/output`` whose one shard has one commit with these lines."""
    folder.mkdir(parents=True, exist_ok=True)
    small = prepare_small_job(folder, [{"prompt": "a cat"}], **config)
    store = small.store
    log = opened(store)
    key = layout.attempt_object("ledger", 0, log.epoch, log.next_seq, "parquet")
    data = to_parquet(ledger_of(images))
    store.put_if_absent(key, data)
    ref = ObjectRef(key=key, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    log.commit(replace(commit_of(log, [0]), images=len(images), ledger=ref))
    if finished:
        log.seal(now=now)
        store.put(layout.manifest(0), b"{}")
        store.put(layout.WORKER_LEDGER, to_parquet(ledger_of(others)))
    return store


def ledger_of(lines: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The lines as a table of the ledger."""
    return pa.Table.from_pylist([dict(line) for line in lines], schema=LEDGER)
