"""The ways against each other: whole runs as programs of their own, one after the other, in turns.

A whole run is the time from the start of the way's program to the last byte that it wrote. All ways
have the same CPU threads, and by default the same settings of memory allocation.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.contestants import Way
from benchmarks.environment import competitor_environment
from benchmarks.resident import Resident
from benchmarks.results import Run
from benchmarks.timeline import Made, denoiser_share, fill, steady_rate
from benchmarks.ways.task import Task

Pictures = Mapping[str, Any]


class Contest:
    """Runs ways below ``folder`` and remembers the first pictures of each turn.

    Args:
        residents: a warm ImageMill by precision, for its steady state.
    """

    def __init__(
        self, folder: Path, residents: Mapping[str, Resident], *, same_malloc: bool
    ) -> None:
        self._folder = folder
        self._residents = residents
        self._environment = competitor_environment(same_malloc=same_malloc)
        self._first: dict[tuple[str, int], Pictures] = {}

    def run(self, way: Way, workload: str, turn: int, task: Task) -> Run:
        """One whole run; of ImageMill also one of a warm worker. ``task`` has the rows.

        Raises:
            RuntimeError: the way failed; with the end of its log.
        """
        task = self._fresh(task, way, workload, turn)
        whole_s = self._whole_run(way, task)
        pictures = read_pictures(task.output)
        if way.module is None:
            steady = self._fresh(task, way, workload, turn, "steady")
            found = self._residents[way.precision].worker(steady)
            rate, share = found.images_per_second, found.denoiser_s / found.seconds
            filled = found.fill
        else:
            made = read_made(task.output)
            rate = steady_rate(made, _last_byte_s(task.output / "images"))
            share, filled = denoiser_share(made), fill(made, task.batch)
        first = self._first.setdefault((workload, turn), pictures)
        return Run(
            way=way.name,
            workload=workload,
            turn=turn,
            images=len(pictures),
            whole_s=whole_s,
            steady_per_second=rate,
            denoiser_share=share,
            fill=filled,
            difference=largest_difference(first, pictures),
        )

    def _fresh(self, task: Task, way: Way, workload: str, turn: int, kind: str = "whole") -> Task:
        output = self._folder / f"{workload}-{turn}-{way.name}-{kind}"
        return replace(task, output=output, precision=way.precision)

    def _whole_run(self, way: Way, task: Task) -> float:
        log = self._folder / f"{task.output.name}.log"
        added = {} if way.module is None else self._environment
        began_s = time.time()
        with log.open("wb") as stream:
            done = subprocess.run(
                way.command(task),
                env={**os.environ, **added},
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{way.title} ended with status {done.returncode}: {end}")
        return _last_byte_s(task.output) - began_s


def read_made(output: Path) -> list[Made]:
    """What a way without ImageMill says of its images."""
    names = ["started_s", "finished_s", "work", "denoiser_s", "group", "steps"]
    rows = pq.read_table(output / "metadata.parquet", columns=names).to_pylist()
    return [Made(**row) for row in rows]


def read_pictures(output: Path) -> Pictures:
    """All pictures of a run by the id of their row, as numbers.

    Raises:
        RuntimeError: a row was made twice.
    """
    found: dict[str, Any] = {}
    for row in pq.read_table(output / "metadata.parquet", columns=["id", "object"]).to_pylist():
        if row["id"] in found:
            raise RuntimeError(f"{row['id']} is twice in {output}; expected each row once")
        with Image.open(output / row["object"]) as image:
            found[row["id"]] = np.asarray(image.convert("RGB")).astype(int)
    return found


def largest_difference(left: Pictures, right: Pictures) -> int:
    """Of any channel of any picture.

    Raises:
        RuntimeError: they are not of the same rows.
    """
    if left.keys() != right.keys():
        raise RuntimeError(f"{len(left)} and {len(right)} pictures; expected the same rows")
    return max(int(np.abs(left[name] - right[name]).max()) for name in left)


def _last_byte_s(folder: Path) -> float:
    """When the newest file below a folder was written, seconds since the epoch."""
    return max(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
