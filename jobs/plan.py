"""Planning: which rows there are and how they are cut into shards.

Reads Parquet footers only, so that planning costs the same whatever the rows hold. The plan depends
on the input and ``input.*`` alone, never on the number of workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster.input_files import Fingerprint, InputFiles, format_of
from cluster.plan_file import InputFile, PlanReader
from cluster.reader import Footer, read_footer
from cluster.records import Shard
from cluster.store import Store
from conf.errors import InputChanged, InputError
from conf.schema import RunConfig
from jobs import staging
from jobs.input_columns import check_columns, column_warnings

_SHARDS_WANTED = 10_000
_FEWEST_ROWS = 32
_MOST_ROWS = 4096
_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class PlannedJob:
    """A plan before it is stored.

    ``problems`` are files that are left out, ``warnings`` what the user should know. Rows staged
    for a plan that is not stored live as long as this object.
    """

    inputs: tuple[InputFile, ...]
    shard_rows: int
    rows: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def shards(self) -> Iterator[Shard]:
        """The shards by id; a fresh iterator each time."""
        return cut_shards(self.inputs, self.shard_rows)

    @property
    def shard_count(self) -> int:
        """The number of shards."""
        return sum(math.ceil(item.rows / self.shard_rows) for item in self.inputs)


def choose_shard_rows(rows: int) -> int:
    """Rows of a shard for an input of ``rows``: about 10,000 shards of 32 to 4096 rows."""
    return min(_MOST_ROWS, max(_FEWEST_ROWS, math.ceil(rows / _SHARDS_WANTED)))


def cut_shards(inputs: Iterable[InputFile], shard_rows: int) -> Iterator[Shard]:
    """Cut the files, in their order, into shards; no shard holds rows of two files."""
    shard_id = file_start = 0
    for item in inputs:
        for first in range(0, item.rows, shard_rows):
            yield Shard(
                shard_id=shard_id,
                file=item.file,
                first_row=first,
                rows=min(shard_rows, item.rows - first),
                first_row_id=file_start + first,
            )
            shard_id += 1
        file_start += item.rows


def make_plan(config: RunConfig, store: Store | None) -> PlannedJob:
    """Plan a job; without a ``store`` (a dry run) nothing is written outside a temporary folder.

    One unreadable file among several is left out as a problem; everything else is refused.

    Raises:
        InputError: nothing to read, an unreadable file, a missing or ambiguous column.
        StoreUnavailable: the input's or output's store did not answer.
    """
    files = InputFiles.of(config, store)
    sources = files.expand(config.input.path, config.input.format)
    folder = None if store else Path(tempfile.mkdtemp(prefix="imagemill-plan-"))
    put = staging.into_store(store) if store else staging.into_folder(folder or Path())
    with contextlib.ExitStack() as if_refused:
        if_refused.callback(_remove, folder)
        found = list(_examine_all(config, files, sources, put))
        planned = _planned(config, found)
        if_refused.pop_all()
    if folder:
        weakref.finalize(planned, _remove, folder)
    return planned


def check_inputs_unchanged(plan: PlanReader, files: InputFiles) -> None:
    """Compare every input file with what was planned.

    A source that was staged may be gone, its rows are in the output; if it is there it must be the
    same, or its new rows would silently be missed.

    Raises:
        InputChanged: naming the file, what was expected and what was found.
    """

    def check(item: InputFile) -> None:
        _check_unchanged(item, files)

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(check, _one_per_source(plan.inputs())):
            pass


def _one_per_source(inputs: Iterable[InputFile]) -> Iterator[InputFile]:
    last = None
    for item in inputs:
        if item.problem is None and item.source != last:
            yield item
        last = item.source


def _check_unchanged(item: InputFile, files: InputFiles) -> None:
    expected = f"{item.bytes} bytes with fingerprint {item.fingerprint[:12]}"
    try:
        found = files.fingerprint(item.source)
    except InputChanged as error:
        if item.file != item.source:
            return
        raise InputChanged(
            f"{item.source} is gone; expected {expected} as it was planned. Put it back to resume, "
            "or start a new job at another output.path"
        ) from error
    if found != Fingerprint(bytes=item.bytes, digest=item.fingerprint):
        raise InputChanged(
            f"{item.source} changed after it was planned: expected {expected}, found {found.bytes} "
            f"bytes with fingerprint {found.digest[:12]}. Restore it to resume, or start a new job "
            "at another output.path"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examined:
    """What became of one source: its files (one, or several staged parts) and a sample footer."""

    files: tuple[InputFile, ...]
    schema: pa.Schema | None


def _examine_all(
    config: RunConfig, files: InputFiles, sources: Sequence[str], put: staging.PutPart
) -> Iterator[_Examined]:
    def examine(place: int) -> _Examined:
        source = sources[place]
        try:
            return _examine(config, files, source, place, put)
        except _UnreadableError as error:
            if len(sources) == 1:
                raise InputError(str(error)) from error
            return _left_out(source, str(error))

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(examine, range(len(sources)))


class _UnreadableError(InputError):
    """The file itself is damaged, as opposed to not fitting what was asked."""


def _examine(
    config: RunConfig, files: InputFiles, source: str, place: int, put: staging.PutPart
) -> _Examined:
    kind = format_of(source, config.input.format)
    columns = config.input.columns
    fingerprint = files.fingerprint(source)
    parts = [source]
    if kind != "parquet":
        parts = list(staging.stage(source, kind, columns, files.open, put=put, stem=f"{place:05d}"))
    if not parts:  # a JSON Lines file without a line has no columns either
        parts, footers = [source], [Footer(schema=None, rows=0)]
    else:
        footers = [_footer(files, file) for file in parts]
        check_columns(source, footers[0].schema, columns)
    starts = list(itertools.accumulate((footer.rows for footer in footers[:-1]), initial=0))
    return _Examined(
        schema=footers[0].schema,
        files=tuple(
            InputFile(
                index=0,
                file=file,
                source=source,
                source_row=start,
                bytes=fingerprint.bytes,
                fingerprint=fingerprint.digest,
                rows=footer.rows,
            )
            for file, footer, start in zip(parts, footers, starts, strict=True)
        ),
    )


def _footer(files: InputFiles, file: str) -> Footer:
    try:
        return read_footer(file, files.open)
    except InputChanged:
        raise
    except InputError as error:
        raise _UnreadableError(str(error)) from error


def _left_out(source: str, problem: str) -> _Examined:
    item = InputFile(
        index=0, file=source, source=source, bytes=0, fingerprint="", rows=0, problem=problem
    )
    return _Examined(files=(item,), schema=None)


def _planned(config: RunConfig, found: Sequence[_Examined]) -> PlannedJob:
    flat = [item for examined in found for item in examined.files]
    inputs = tuple(dataclasses.replace(item, index=i) for i, item in enumerate(flat))
    problems = tuple(item.problem for item in inputs if item.problem is not None)
    if inputs and len(problems) == len(inputs):
        raise InputError(f"none of the {len(inputs)} input files can be read; first: {problems[0]}")
    rows = sum(item.rows for item in inputs)
    warnings = [f"left out: {problem}" for problem in problems]
    for examined in found:
        if examined.schema is not None:
            source = examined.files[0].source
            warnings += column_warnings(source, examined.schema, config.input.columns)
    if not rows:
        warnings.append(f"input.path {config.input.path} has no rows")
    return PlannedJob(
        inputs=inputs,
        shard_rows=config.input.shard_rows or choose_shard_rows(rows),
        rows=rows,
        problems=problems,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
