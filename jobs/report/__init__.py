"""The reports of an output: a page, a contact sheet and a note, all rebuilt at will."""

from __future__ import annotations

from collections.abc import Sequence

from cluster import layout
from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.totals import Bill, Totals
from jobs.figures import ReportFacts, is_simulated, model_label
from jobs.image_costs import shares_of, write_image_costs
from jobs.report.columns import metadata_columns
from jobs.report.front_matter import front_matter
from jobs.report.image_list import write_image_list
from jobs.report.note import dataset_note, file_extension
from jobs.report.page import GALLERY, THUMBNAIL_PX, build_report
from jobs.report.samples import Sample, pick_samples
from jobs.report.survey import Survey, survey, top_reasons
from operators.contact_sheet import Tile, contact_sheet

SHEET_TILES = 48
_COLUMNS = 8
_EMPTY_COLUMNS = 3
_TILE_PX = 192


def write_report(
    store: Store,
    job: JobRecord,
    plan: PlanReader,
    totals: Totals,
    closing: Bill,
    facts: ReportFacts,
    counts: Survey | None = None,
) -> list[str]:
    """Write contact sheet, page and note over what was there; returns their keys.

    Also what each image cost with its shares, and for the ``files`` format the list of images that
    ``datasets`` needs.

    Args:
        counts: the exact counts; surveyed from the output when None.

    Raises:
        CorruptOutput: a table that a counted commit names does not exist.
        StoreFull, StoreUnavailable: they could not be written.
    """
    samples = pick_samples(store, plan, SHEET_TILES, max_px=THUMBNAIL_PX)
    few = _fewer(samples, GALLERY)
    page = build_report(store, job, plan, totals, closing, facts, samples=few, counts=counts)
    written = {
        layout.CONTACT_SHEET: _sheet(job, totals, samples),
        layout.REPORT: page,
    }
    write_image_costs(store, plan, shares_of(job, totals, closing))
    front = _front_matter(store, job, plan, totals, closing)
    written[layout.README] = dataset_note(store, job, totals, closing, front=front)
    for key, data in written.items():
        store.put(key, data)
    return list(written)


def _front_matter(
    store: Store, job: JobRecord, plan: PlanReader, totals: Totals, closing: Bill
) -> str | None:
    """What makes the output a dataset that opens by its folder's name, with the list of images."""
    output = job.config.output
    if not totals.images:
        return None
    columns = metadata_columns(store, plan)
    shares = shares_of(job, totals, closing)
    if output.format == "files" and not write_image_list(store, plan, columns.schema, shares):
        return None
    return front_matter(output.format, file_extension(output.image), columns)


def _fewer(samples: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` of the samples, evenly."""
    count = min(count, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _sheet(job: JobRecord, totals: Totals, samples: Sequence[Sample]) -> bytes:
    mark = "SIMULATED · " if is_simulated(job.config) else ""
    of = f"{len(samples)} of {totals.images:,} images" if totals.images else "no images"
    return contact_sheet(
        [Tile(image_bytes=s.image, caption=s.row["prompt"] or "") for s in samples],
        columns=_COLUMNS if samples else _EMPTY_COLUMNS,
        tile_px=_TILE_PX,
        title=f"{mark}{job.config.job.name or 'job'} · {model_label(job.config)} · {of}",
    )


__all__ = [
    "SHEET_TILES",
    "ReportFacts",
    "Sample",
    "Survey",
    "build_report",
    "pick_samples",
    "survey",
    "top_reasons",
    "write_report",
]
