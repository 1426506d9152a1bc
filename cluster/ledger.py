"""The ledger: one line a cost, with all that a question about it may need, so that nothing has to
be joined to it.

Owns the table's columns and who a cost is charged to; the arithmetic is ``cluster.money``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from cluster.money import LedgerLine, as_decimal, charge
from cluster.price import Price
from cluster.shard_work import FinishedImage
from conf.errors import ConfigError
from conf.schema import JobConfig

_WORD = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")

LEDGER = pa.schema(
    [
        ("line_id", pa.string()),
        ("corrects", pa.string()),
        ("kind", _WORD),
        ("job", _WORD),
        ("project", _WORD),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("worker", _WORD),
        ("node", _WORD),
        ("image_id", pa.string()),
        ("row_id", pa.int64()),
        ("model", _WORD),
        ("sampler", _WORD),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("steps", pa.int32()),
        ("period_start", _TIME),
        ("period_end", _TIME),
        ("gpu_ns", pa.int64()),
        ("quantity", pa.decimal128(38, 9)),
        ("unit", _WORD),
        ("amount_nano", pa.int64()),
        ("currency", _WORD),
        ("provider", _WORD),
        ("region", _WORD),
        ("instance_type", _WORD),
        ("purchase_option", _WORD),
        ("price_nano_per_hour", pa.int64()),
        ("price_nano_per_unit", pa.int64()),
        ("price_version", _WORD),
        ("price_digest", _WORD),
    ],
    metadata={b"imagemill_schema": b"2"},
)
"""``line_id`` is unique in an output; ``corrects`` is that of the line which a line changes.
``kind`` is used, wasted, overhead or idle for a worker's time (``gpu_ns``, at
``price_nano_per_hour``), and storage, requests or egress for the rest (``quantity`` of ``unit``, at
``price_nano_per_unit``). ``image_id`` to ``steps`` are null where a line is no image's,
``amount_nano`` where no price is known."""
PRICE_COLUMNS = (
    "currency",
    "provider",
    "region",
    "instance_type",
    "purchase_option",
    "price_nano_per_hour",
    "price_nano_per_unit",
    "price_version",
    "price_digest",
)
"""At what a line was charged: columns of ``LEDGER``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What a job's lines are charged to."""

    job: str | None
    project: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, job: JobConfig) -> Self:
        """As the job was asked."""
        return cls(job=job.name, project=job.project, tags=job.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """The worker whose time is charged, and how much it has of which GPUs."""

    worker: str
    node: str
    price: Price
    gpus: tuple[str, ...] = ()
    share: float = 1.0


def image_lines(
    images: Sequence[FinishedImage],
    tags: Sequence[Mapping[str, str]],
    *,
    model: str,
    payer: Payer,
) -> list[LedgerLine]:
    """The used lines of committed images; ``tags`` are those of each image's row."""
    return [
        LedgerLine(
            line_id=f"{payer.worker}:{image.request.image_id}",
            kind="used",
            worker=payer.worker,
            node=payer.node,
            price=payer.price,
            period_start=image.started_at_ns // 1000,
            period_end=image.finished_at_ns // 1000,
            device_ns=image.device_ns,
            amount_nano=charge(payer.price, image.device_ns),
            image=image.request,
            model=model,
            tags=own,
        )
        for image, own in zip(images, tags, strict=True)
    ]


def ledger_table(lines: Sequence[LedgerLine], attribution: Attribution) -> pa.Table:
    """The lines as the table of the schema. A row's tag replaces the job's of the same name.

    Raises:
        ConfigError: a line comes to more than the schema holds.
    """
    _refuse_too_much(lines)
    return pa.Table.from_pylist([_row(line, attribution) for line in lines], schema=LEDGER)


def _refuse_too_much(lines: Sequence[LedgerLine]) -> None:
    most = 2**63 - 1
    line = next((one for one in lines if one.amount_nano and abs(one.amount_nano) > most), None)
    if line is None:
        return
    amount, currency = as_decimal(line.amount_nano or 0), line.price.currency
    raise ConfigError(
        f"line {line.line_id} of the ledger comes to {amount:,f} {currency}, and can hold no more "
        f"than {as_decimal(most):,f} {currency}; check the prices, or begin a job with a price "
        "book in a larger currency; what was made stays"
    )


def _row(line: LedgerLine, attribution: Attribution) -> dict[str, Any]:
    price, image = line.price, line.image
    timed = line.quantity is None
    return {
        "line_id": line.line_id,
        "kind": line.kind,
        "job": attribution.job,
        "project": attribution.project,
        "tags": sorted({**attribution.tags, **line.tags}.items()),
        "worker": line.worker,
        "node": line.node,
        "image_id": image.image_id if image else None,
        "row_id": image.row_id if image else None,
        "model": line.model,
        "sampler": image.sampler if image else None,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "steps": image.steps if image else None,
        "period_start": line.period_start,
        "period_end": line.period_end,
        "gpu_ns": line.device_ns,
        "quantity": line.quantity,
        "unit": line.unit,
        "amount_nano": line.amount_nano,
        "currency": price.currency,
        "provider": price.provider,
        "region": price.region,
        "instance_type": price.instance_type if timed else None,
        "purchase_option": price.purchase_option if timed else None,
        "price_nano_per_hour": price.nano_per_hour if timed else None,
        "price_nano_per_unit": line.unit_nano,
        "price_version": price.version,
        "price_digest": price.digest,
    }
