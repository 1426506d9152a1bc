"""What a job would do, counted without doing it: for ``--dry-run``.

Streams the columns that decide what an image is and no others; memory grows with the number of
distinct shapes and step counts, not with the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.cell_values import plain_values
from cluster.plan_file import InputFile
from cluster.reader import KNOWN, OpenFile
from conf.errors import RowRejected
from conf.schema import ColumnsConfig
from jobs import rates
from jobs.scan import Scanned, scan_input
from operators.guidance import guidance_passes
from operators.request import Request, RowDefaults, parse_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Counts over the whole input. All but ``rows`` and ``rejected`` count images.

    ``shapes`` by (width, height); ``guided`` have a guidance pass. ``rejected`` counts rows by
    reason, ``examples`` holds the first message of each. ``weighted_steps`` are rows put into the
    denoiser (those of a guidance pass too), ``pixel_steps`` the same times the image's pixels.
    """

    rows: int
    images: int
    weighted_steps: int
    pixel_steps: int
    guided: int
    shapes: Mapping[tuple[int, int], int]
    steps: Mapping[int, int]
    samplers: Mapping[str, int]
    rejected: Mapping[str, int]
    examples: Mapping[str, str]

    @property
    def unguided(self) -> int:
        """Images without a guidance pass."""
        return self.images - self.guided

    def seconds(self, key: rates.RateKey, *, workers: int = 1) -> float | None:
        """The estimated time of denoising, or None where no rate was measured yet."""
        return rates.estimate(key, self.pixel_steps, workers=workers)


def make_preview(
    inputs: Iterable[InputFile],
    columns: ColumnsConfig,
    defaults: RowDefaults,
    open_file: OpenFile,
    shard_rows: int = 4096,
    *,
    two_pass_guidance: bool = True,
    most_rows: int | None = None,
) -> Preview:
    """Count what the planned files ask for; rejected and unreadable rows are counted, not raised.

    Args:
        two_pass_guidance: the model's.
        most_rows: stop after about so many rows; None: count all.

    Raises:
        InputChanged, StoreUnavailable: a file cannot be read any more.
    """
    tally = _Tally(defaults, two_pass_guidance)
    for scanned in scan_input(inputs, KNOWN, columns, open_file, shard_rows):
        tally.add(scanned)
        if most_rows is not None and tally.rows >= most_rows:
            break
    return tally.result()


@dataclass(slots=True)
class _Tally:
    defaults: RowDefaults
    two_pass_guidance: bool
    rows: int = 0
    images: int = 0
    weighted_steps: int = 0
    pixel_steps: int = 0
    guided: int = 0
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)
    steps: Counter[int] = field(default_factory=Counter)
    samplers: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, scanned: Scanned) -> None:
        self.rows += scanned.rows
        if scanned.problem is not None:
            self._reject(scanned.problem, scanned.rows)
            return
        values = {name: plain_values(item, name) for name, item in scanned.columns.items()}
        for offset in range(scanned.rows):
            row = {name: column[offset] for name, column in values.items()}
            row_id = scanned.first_row_id + offset
            try:
                requests = parse_row(row, row_id=row_id, defaults=self.defaults)
            except RowRejected as problem:
                self._reject(problem, 1)
                continue
            self._count(requests[0], len(requests))

    def _count(self, request: Request, images: int) -> None:
        """The images of a row differ in their seeds only."""
        passes = guidance_passes(request.guidance_scale, two_pass_guidance=self.two_pass_guidance)
        weight = rates.weighted_steps(sampler=request.sampler, steps=request.steps, passes=passes)
        self.images += images
        self.weighted_steps += weight * images
        self.pixel_steps += weight * images * request.width * request.height
        self.guided += images * (passes - 1)
        self.shapes[request.width, request.height] += images
        self.steps[request.steps] += images
        self.samplers[request.sampler] += images

    def _reject(self, problem: RowRejected, rows: int) -> None:
        self.rejected[problem.reason] += rows
        self.examples.setdefault(problem.reason, problem.message)

    def result(self) -> Preview:
        return Preview(
            rows=self.rows,
            images=self.images,
            weighted_steps=self.weighted_steps,
            pixel_steps=self.pixel_steps,
            guided=self.guided,
            shapes=dict(sorted(self.shapes.items())),
            steps=dict(sorted(self.steps.items())),
            samplers=dict(sorted(self.samplers.items())),
            rejected=dict(sorted(self.rejected.items())),
            examples=self.examples,
        )
