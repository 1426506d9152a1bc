"""``make bench``: measures all that docs/performance.md shows, and writes it.

    python -m benchmarks --rows 96 --turns 3

Each figure is printed as it is made. With ``--parts`` only some parts are run; the others keep what
``performance.json`` in the output folder has.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import denoiser, overlap, page, through_triton, worker_memory
from benchmarks.contest import Contest
from benchmarks.contestants import WAYS
from benchmarks.environment import machine
from benchmarks.resident import Resident
from benchmarks.results import Results, Settings
from benchmarks.simulation import simulate
from benchmarks.through_triton import ThroughTriton
from benchmarks.ways.imagemill import PRECISIONS
from benchmarks.ways.task import Task
from benchmarks.workloads import rows_of, write_rows

PARTS = ("contest", "denoiser", "overlap", "triton", "memory", "simulation")
MAIN_WAYS = ("loop", "sorted", "ray", "exact", "fast")
"""Without the competitors in bfloat16, which take a quarter of the time more."""
WARM_UP_DRAW = 3_000
TRITON_DRAW = 5_000
SIMULATED_ROWS = (100, 1_000, 10_000)


class Bench:
    """One run of the benchmark; ``base`` is a folder of its own."""

    def __init__(self, options: argparse.Namespace, base: Path, stack: ExitStack) -> None:
        self._options = options
        self._base = base
        self._stack = stack
        self._residents: dict[str, Resident] = {}

    def run(self, part: str, results: Results) -> None:
        """Measure one part anew."""
        getattr(self, f"_{part}")(results)

    def _contest(self, results: Results) -> None:
        ways = [WAYS[name] for name in self._options.ways]
        residents = {way.precision: self._resident(way.precision) for way in ways if not way.module}
        contest = Contest(self._base, residents, same_malloc=results.settings.same_malloc)
        results.runs = []
        for turn in range(results.settings.turns):
            for workload in self._options.workloads:
                task = self._task(workload, results.settings.rows, draw=turn)
                for way in ways:
                    results.runs.append(said(contest.run(way, workload, turn, task)))

    def _denoiser(self, results: Results) -> None:
        results.shares = []
        for turn in range(results.settings.turns):
            for precision in PRECISIONS:
                resident = self._resident(precision)
                rows = results.settings.rows
                results.shares.append(said(denoiser.measure(resident, precision, turn, rows)))

    def _overlap(self, results: Results) -> None:
        results.overlaps = []
        for turn in range(results.settings.turns):
            draw = overlap.DRAW + 2 * turn
            task = self._task("mixed", self._options.overlap_rows, draw=draw)
            results.overlaps.append(said(overlap.measure(self._resident("float32"), turn, task)))

    def _triton(self, results: Results) -> None:
        results.served = []
        folder = self._base / "triton"
        with ThroughTriton.open(folder, self._options.model) as through:
            for turn in range(self._options.triton_turns):
                rows = self._task("mixed", self._options.triton_rows, draw=TRITON_DRAW + turn).rows
                for way in through_triton.WAYS:
                    results.served.append(said(through.run(way, turn, rows)))

    def _memory(self, results: Results) -> None:
        results.peaks = [
            said(worker_memory.peak_of(engine, rows))
            for engine, most in (
                ("simulated", self._options.simulated_rows),
                ("stepwise", self._options.memory_rows),
            )
            for rows in (200, most)
        ]

    def _simulation(self, results: Results) -> None:
        results.simulated = [
            said(one) for rows in SIMULATED_ROWS for one in simulate(rows, results.settings.batch)
        ]

    def _task(self, workload: str, count: int, *, draw: int) -> Task:
        """Rows that no warm engine has seen."""
        name = f"{workload}-{count}-{draw}"
        rows = self._base / f"{name}.parquet"
        if not rows.exists():
            write_rows(rows, rows_of(workload, count, draw))
        return Task(
            rows=rows,
            output=self._base / name,
            model=self._options.model,
            batch=self._options.batch,
            precision="float32",
        )

    def _resident(self, precision: str) -> Resident:
        """Warm with a full batch of each size."""
        if precision not in self._residents:
            task = self._task("mixed", 2 * self._options.batch, draw=WARM_UP_DRAW)
            task = replace(task, precision=precision)
            self._residents[precision] = self._stack.enter_context(Resident(task))
        return self._residents[precision]


def said(record: Any) -> Any:
    """Print a record as it is made."""
    values = (
        f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in asdict(record).items()
    )
    print(f"{type(record).__name__.lower()}: {' '.join(values)}", flush=True)
    return record


def main() -> None:
    options = parse()
    results = begin(options)
    with tempfile.TemporaryDirectory(prefix="imagemill-bench-") as folder, ExitStack() as stack:
        bench = Bench(options, Path(folder), stack)
        for part in options.parts:
            started_s = time.monotonic()
            results.load_average[part] = round(os.getloadavg()[0], 1)
            bench.run(part, results)
            results.took_s[part] = time.monotonic() - started_s
            page.write(results, options.output)
    print(page.page(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_title())
    parser.add_argument("--rows", type=int, default=48, help="rows of each workload (default 48)")
    parser.add_argument("--turns", type=int, default=2, help="how often each way (default 2)")
    parser.add_argument("--batch", type=int, default=16, help="most rows of a call (default 16)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=MAIN_WAYS)
    parser.add_argument("--workloads", nargs="+", choices=page.WORKLOADS, default=page.WORKLOADS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--model", default="package:models/shapes/weights")
    parser.add_argument("--output", type=Path, default=page.DOCS, help="folder of the page (docs)")
    parser.add_argument("--overlap-rows", type=int, default=96, help="of the slow store (96)")
    parser.add_argument("--triton-rows", type=int, default=400, help="through Triton (400)")
    parser.add_argument("--triton-turns", type=int, default=2, help="through Triton (2)")
    parser.add_argument(
        "--simulated-rows", type=int, default=20_000, help="largest job of the simulated engine"
    )
    parser.add_argument(
        "--memory-rows", type=int, default=2_000, help="largest job of the model (default 2000)"
    )
    parser.add_argument(
        "--system-malloc",
        action="store_true",
        help="the competitors do without ImageMill's settings of memory allocation",
    )
    options = parser.parse_args()
    if options.rows <= options.batch:
        parser.error(f"--rows is {options.rows}; expected more than --batch ({options.batch})")
    return options


def begin(options: argparse.Namespace) -> Results:
    """New results, with the parts of the last ones that are not measured now.

    Raises:
        SystemExit: those were measured with other settings.
    """
    settings = Settings(
        rows=options.rows,
        turns=options.turns,
        batch=options.batch,
        model=options.model,
        same_malloc=not options.system_malloc,
    )
    last = options.output / "performance.json"
    kept = Results.read(last) if last.exists() and set(options.parts) != set(PARTS) else None
    if kept and kept.settings != settings:
        raise SystemExit(
            f"{last} was measured with {kept.settings}; expected {settings}: measure all parts, or "
            "choose another --output"
        )
    new = Results(
        written_at=f"{datetime.now(UTC):%d %B %Y}",
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        took_s={},
        load_average={},
        machine=machine(),
        settings=settings,
    )
    if kept is None:
        return new
    return replace(kept, written_at=new.written_at, machine=new.machine)


def _title() -> str:
    return (__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    main()
