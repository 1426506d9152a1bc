"""What a run is to reach, as far as it is known before its first worker: by when, and how fast."""

from __future__ import annotations

import logging

from cluster.input_files import InputFiles
from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.ray_session import Resources
from cluster.sizing import Aim
from cluster.store import Store
from conf.errors import ImageMillError
from conf.price_book import PriceBook
from jobs.deadline import due_of
from jobs.known_rate import known_rate
from jobs.preview import make_preview
from jobs.spending import expected_price
from operators.guidance import has_two_pass_guidance
from operators.row_defaults import row_defaults

log = logging.getLogger("imagemill")
_SAMPLED_ROWS = 4096


def aim_of(
    job: JobRecord,
    store: Store,
    plan: PlanReader,
    book: PriceBook,
    size: Resources,
    *,
    generation: int,
    resumed: bool,
) -> Aim:
    """The aim of a run. A deadline is that of the job's first end: retries have none."""
    deadline = None if generation else due_of(job)
    return Aim(
        rows=plan.rows,
        deadline=deadline,
        rate=None if deadline is None else _rate(job, store, plan, size, resumed=resumed),
        nano_per_hour=expected_price(job.config, book, size),
    )


def _rate(
    job: JobRecord, store: Store, plan: PlanReader, size: Resources, *, resumed: bool
) -> float | None:
    """Images a second of a worker, from earlier runs and the first rows; it is said which, or why
    nothing is known."""
    config = job.config
    try:
        known = known_rate(job, store, plan, size, resumed=resumed)
        rate, source = None, known.source
        if known.pixel_steps is not None:
            rate = _images_a_second(known.pixel_steps, job, store, plan)
    except ImageMillError as error:
        rate, source = None, str(error)
    if rate is None:
        log.info(
            "job.deadline=%s: how fast a worker is, is not known before the first one is at work: "
            "%s",
            config.job.deadline,
            source,
            extra={"event": "rate_unknown"},
        )
    else:
        log.info(
            "job.deadline=%s: until this run shows how fast its workers are, each counts with %.3g "
            "images/s, by %s",
            config.job.deadline,
            rate,
            source,
            extra={"event": "rate_remembered"},
        )
    return rate


def _images_a_second(
    pixel_steps: float, job: JobRecord, store: Store, plan: PlanReader
) -> float | None:
    """Of images as the first rows ask for them; None where these ask for none."""
    config = job.config
    preview = make_preview(
        plan.inputs(),
        config.input.columns,
        row_defaults(config),
        InputFiles.of(config, store).open,
        two_pass_guidance=has_two_pass_guidance(config.model),
        most_rows=_SAMPLED_ROWS,
    )
    return pixel_steps * preview.images / preview.pixel_steps if preview.pixel_steps else None
