"""What a run is to reach, as far as it is known before its first worker: by when, and how fast."""

from __future__ import annotations

from cluster.input_files import InputFiles
from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.ray_session import Resources
from cluster.sizing import Aim
from cluster.store import Store
from conf.errors import ImageMillError
from conf.price_book import PriceBook
from jobs.deadline import due_of
from jobs.measured import rate_key
from jobs.preview import make_preview
from jobs.spending import expected_price
from operators.guidance import has_two_pass_guidance
from operators.row_defaults import row_defaults

_SAMPLED_ROWS = 4096


def aim_of(
    job: JobRecord,
    store: Store,
    plan: PlanReader,
    book: PriceBook,
    size: Resources,
    *,
    generation: int,
) -> Aim:
    """The aim of a run. A deadline is that of the job's first end: retries have none."""
    deadline = None if generation else due_of(job)
    return Aim(
        rows=plan.rows,
        deadline=deadline,
        rate=None if deadline is None else _remembered_rate(job, store, plan),
        nano_per_hour=expected_price(job.config, book, size),
    )


def _remembered_rate(job: JobRecord, store: Store, plan: PlanReader) -> float | None:
    """Images a second of a worker, from earlier runs on this machine and the first rows; None where
    the workers are elsewhere or nothing was measured."""
    config = job.config
    if config.cluster.address != "local" or config.engine.name == "triton":
        return None
    try:
        preview = make_preview(
            plan.inputs(),
            config.input.columns,
            row_defaults(config),
            InputFiles.of(config, store).open,
            two_pass_guidance=has_two_pass_guidance(config.model),
            most_rows=_SAMPLED_ROWS,
        )
    except ImageMillError:
        return None
    seconds = preview.seconds(rate_key(config, job.model_revision))
    return preview.images / seconds if seconds else None
