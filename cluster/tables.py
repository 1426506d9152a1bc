"""The Parquet tables of a commit: metadata, quarantine, and images inside Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.energy import Power, footprint
from cluster.money import as_decimal, charge
from cluster.price import Price
from cluster.shard_work import FinishedImage, RejectedRow
from conf.schema import EnergyConfig
from operators.engine import EngineInfo

MONEY = pa.decimal128(38, 9)
_TIME = pa.timestamp("us", tz="UTC")
_SCHEMA_VERSION = {b"imagemill_schema": b"1"}

METADATA = pa.schema(
    [
        ("image_id", pa.string()),
        ("row_id", pa.int64()),
        ("id", pa.string()),
        ("image_index", pa.int32()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("seed", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("steps", pa.int32()),
        ("guidance_scale", pa.float64()),
        ("sampler", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("engine", pa.string()),
        ("precision", pa.string()),
        ("device", pa.string()),
        ("object", pa.string()),
        ("member", pa.string()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("gpu_seconds", pa.float64()),
        ("cost", MONEY),
        ("currency", pa.string()),
        ("energy_wh", pa.float64()),
        ("energy_method", pa.string()),
        ("gco2e", pa.float64()),
        ("grid_g_per_kwh", pa.float64()),
        ("carbon_method", pa.string()),
        ("truncated_tokens", pa.int32()),
        ("worker", pa.string()),
        ("attempt", pa.int32()),
        ("started_at", _TIME),
        ("finished_at", _TIME),
    ],
    metadata=_SCHEMA_VERSION,
)
QUARANTINE = pa.schema(
    [
        ("row_id", pa.int64()),
        ("id", pa.string()),
        ("shard", pa.int64()),
        ("file", pa.string()),
        ("row_in_file", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("worker", pa.string()),
        ("attempt", pa.int32()),
        ("at", _TIME),
    ],
    metadata=_SCHEMA_VERSION,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What all images of a commit have in common. ``power`` is their worker's, None: not known."""

    engine: EngineInfo
    price: Price
    worker: str
    attempt: int
    image_format: str
    power: Power | None
    energy: EnergyConfig


def metadata_table(
    images: Sequence[FinishedImage],
    labels: Sequence[str | None],
    extras: pa.Table,
    members: Sequence[str | None],
    objects: Sequence[str],
    made: Made,
) -> pa.Table:
    """One row an image; ``extras`` (same length) are the passed-through columns, as they came."""
    rows = [
        {
            "image_id": image.request.image_id,
            "row_id": image.request.row_id,
            "id": label,
            "image_index": image.request.image_index,
            "prompt": image.request.prompt,
            "negative_prompt": image.request.negative_prompt,
            "seed": image.request.seed,
            "width": image.request.width,
            "height": image.request.height,
            "steps": image.request.steps,
            "guidance_scale": image.request.guidance_scale,
            "sampler": image.request.sampler,
            "model": made.engine.model,
            "model_revision": made.engine.model_revision,
            "engine": made.engine.name,
            "precision": made.engine.precision,
            "device": made.engine.device,
            "object": key,
            "member": member,
            "format": made.image_format,
            "bytes": image.bytes,
            "sha256": image.sha256,
            "gpu_seconds": image.device_ns / 1e9,
            "cost": _decimal(charge(made.price, image.device_ns)),
            "currency": made.price.currency,
            **asdict(footprint(image.device_ns, made.power, made.energy)),
            "truncated_tokens": image.truncated_tokens,
            "worker": made.worker,
            "attempt": made.attempt,
            "started_at": image.started_at_ns // 1000,
            "finished_at": image.finished_at_ns // 1000,
        }
        for image, label, member, key in zip(images, labels, members, objects, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=METADATA)
    for index, column in enumerate(extras.schema):
        table = table.append_column(column, extras.column(index))
    return table


def quarantine_table(
    rejected: Sequence[RejectedRow],
    *,
    shard_id: int,
    file: str,
    first_row: int,
    first_row_id: int,
    worker: str,
    attempt: int,
    at_ns: int,
) -> pa.Table:
    """One row a rejected row."""
    return pa.Table.from_pylist(
        [
            {
                "row_id": first_row_id + row.offset,
                "id": row.label,
                "shard": shard_id,
                "file": file,
                "row_in_file": first_row + row.offset,
                "stage": row.stage,
                "reason": row.reason,
                "message": row.message,
                "worker": worker,
                "attempt": attempt,
                "at": at_ns // 1000,
            }
            for row in rejected
        ],
        schema=QUARANTINE,
    )


def _decimal(amount_nano: int | None) -> Decimal | None:
    return None if amount_nano is None else as_decimal(amount_nano)


def with_images(metadata: pa.Table, images: Sequence[FinishedImage]) -> pa.Table:
    """The metadata with an ``image`` column that the ``datasets`` library opens as pictures."""
    column = pa.array(
        [{"bytes": image.data, "path": image.name} for image in images],
        type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = metadata.add_column(0, "image", column)
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return table.replace_schema_metadata(
        {**(table.schema.metadata or {}), b"huggingface": json.dumps(features).encode()}
    )


def to_parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file, zstd."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_parquet(data: bytes, columns: list[str] | None = None) -> Any:
    """A table from a Parquet file's bytes.

    Read on this thread alone: ``pq.read_table`` leaves the file to a thread of Arrow, which
    aborts the process when it lets go of it while Python is ending.
    """
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(columns=columns, use_threads=False)


def as_numpy(column: pa.ChunkedArray) -> Any:
    """A column of numbers without nulls as a numpy array [rows].

    Arrow's own ``to_numpy`` imports pandas, which takes longer than the end of a small job.
    """
    return np.from_dlpack(pa.concat_arrays(column.chunks)) if column.chunks else np.array([])
