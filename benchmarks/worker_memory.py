"""The peak memory of a worker by the rows of its job, each in a process of its own.

    python -m benchmarks.worker_memory --rows 200 20000 --engine simulated

One worker makes a whole job in this process, without Ray: it reads Parquet, encodes, writes one
object an image and commits. Peak memory is Linux's high-water mark of resident memory, which unlike
``ru_maxrss`` does not begin with the parent's. Prints one JSON object a job.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.environment import our_environment
from benchmarks.results import Peak

SETTINGS = {
    "simulated": (
        "engine=simulated",
        "engine.simulated_speed=0",
        "sampling.width=16",
        "sampling.height=16",
        "sampling.steps=1",
    ),
    "stepwise": (
        "sampling.width=32",
        "sampling.height=32",
        "sampling.steps=1",
        "sampling.guidance_scale=1",
        "engine.max_batch=16",
    ),
}
"""Jobs that are as short as they can be: the shapes model makes one step of 32 x 32 pixels."""


def peak_of(engine: str, rows: int) -> Peak:
    """A job of so many rows in a new process."""
    command = [sys.executable, "-m", "benchmarks.worker_memory", "--here"]
    done = subprocess.run(
        [*command, f"--engine={engine}", f"--rows={rows}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **our_environment()},
    )
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def work(engine: str, rows: int) -> Peak:
    """A job of so many rows in this process."""
    from benchmarks.one_worker import plan_job, work_on
    from operators.engines import load_engine

    with tempfile.TemporaryDirectory() as folder:
        prompts = pa.array((f"a red circle {number}" for number in range(rows)), pa.string())
        pq.write_table(pa.table({"prompt": prompts}), Path(folder) / "rows.parquet")
        places = [f"input.path={folder}/rows.parquet", f"output.path={folder}/output"]
        job = plan_job([*SETTINGS[engine], *places])
        loaded = load_engine(job.config.engine, job.config.model)
        work_on(job, lambda: loaded, job.store)
    return Peak(engine=engine, rows=rows, peak_mib=_peak_mib())


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kib) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 20_000])
    parser.add_argument("--engine", choices=sorted(SETTINGS), default="simulated")
    parser.add_argument("--here", action="store_true", help="one job, in this process")
    arguments = parser.parse_args()
    for rows in arguments.rows:
        found = work(arguments.engine, rows) if arguments.here else peak_of(arguments.engine, rows)
        print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
