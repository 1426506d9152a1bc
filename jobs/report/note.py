"""The note that lies beside a dataset (README.md): what is here, how to open it, what it cost."""

from __future__ import annotations

import re
import shlex

from cluster.job_log import JobRecord
from cluster.store import Store
from cluster.totals import Bill, Totals
from conf.secrets import without_secrets
from jobs.figures import (
    UNPRICED,
    cost_unknown,
    figures_of,
    format_money,
    is_simulated,
    model_label,
    money,
    size,
)
from jobs.report.rendering import render

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|])")


def dataset_note(
    store: Store, job: JobRecord, totals: Totals, closing: Bill, *, front: str | None
) -> bytes:
    """The note as UTF-8 Markdown; its code runs in the output folder.

    Args:
        front: YAML with which ``datasets`` loads the folder; None where it cannot.
    """
    config, currency = job.config, job.currency
    figures = figures_of(totals, closing)
    context = {
        "front": front,
        "title": _escaped(config.job.name or "job"),
        "simulated": is_simulated(config),
        "model": _escaped(model_label(config)),
        "revision": job.model_revision,
        "format": config.output.format,
        "extension": file_extension(config.output.image),
        "totals": totals,
        "finished": totals.pending == 0 and totals.sealed == totals.shards,
        "bytes": size(totals.image_bytes),
        "cost": UNPRICED if cost_unknown(closing) else format_money(closing.total_amount, currency),
        "per_image": ""
        if figures.cost_per_image is None or closing.unpriced
        else money(figures.cost_per_image, currency),
        "version": job.version,
        "quoted": shlex.quote(without_secrets(store.url)),
    }
    return render("readme.md.j2", context)


def file_extension(image_format: str) -> str:
    """What image files end in."""
    return {"jpeg": "jpg"}.get(image_format, image_format)


def _escaped(text: str) -> str:
    """Text as it may stand in a line of Markdown."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
