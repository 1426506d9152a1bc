"""A mixed job, undisturbed and disturbed: batch fill, exactly once, and pixel equality.

400 rows of 5 step counts x 3 guidance scales x 3 samplers x 3 sizes run twice through the command
line: once in peace, once with ``kill -9`` of a worker and then of the driver in mid-run, and a
resume with another number of workers. Prints the batch fill of the first, and compares all pictures
of the two. Run as ``python -m benchmarks.mixed_job [--rows 400]``.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.make_prompts import prompt

STEPS = (5, 10, 15, 20, 25)
GUIDANCE = (1.0, 3.0, 5.0)
SAMPLERS = ("ddim", "euler_ancestral", "dpmpp_2m")
SIZES = ((64, 64), (64, 96), (96, 64))
WAIT_S = 600.0


def write_rows(path: Path, count: int) -> None:
    """The mixed table: every combination in turn, shuffled, prompts of the shapes model."""
    rng = random.Random(1)
    mixes = list(itertools.product(STEPS, GUIDANCE, SAMPLERS, SIZES))
    rng.shuffle(mixes)
    rows = [
        {
            "prompt": prompt(rng),
            "steps": steps,
            "guidance_scale": guidance,
            "sampler": sampler,
            "width": size[0],
            "height": size[1],
        }
        for steps, guidance, sampler, size in itertools.islice(itertools.cycle(mixes), count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """``imagemill`` in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "jobs.cli", *arguments])


def call(*arguments: str) -> None:
    """``imagemill`` to its end; a bad exit status ends the benchmark."""
    if start(*arguments).wait() != 0:
        raise SystemExit(f"imagemill {' '.join(arguments)} failed")


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait for the job in the other process."""
    never = threading.Event()
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"waited in vain: {what}")
        never.wait(0.2)


def disturbed(source: Path, output: Path, rows: int) -> None:
    """Kill a worker, then the driver; go on with two workers."""

    def committed() -> int:
        return len(list(output.glob("commits/*/*/*.json")))

    job = start("run", f"input.path={source}", f"output.path={output}", "job.commit_seconds=5")
    wait_for(lambda: committed() >= 2, "the first commits")
    workers = [
        child
        for child in psutil.Process(job.pid).children(recursive=True)
        if " ".join(child.cmdline()).startswith("ray::WorkerActor.run")
    ]
    workers[0].kill()
    print(f"killed worker {workers[0].pid} after {committed()} commits")
    before = committed()
    wait_for(lambda: committed() >= before + 2, "commits of the replacement")
    job.send_signal(signal.SIGKILL)
    job.wait()
    print(f"killed the driver after {committed()} commits")
    call("resume", str(output), "cluster.workers=2")
    call("verify", str(output))


def pictures(output: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """All committed pictures of a finished job by image id; a doubled id ends the benchmark."""
    found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
    for path in sorted(output.glob("metadata/*.parquet")):
        for row in pq.read_table(path, columns=["image_id", "object"]).to_pylist():
            if row["image_id"] in found:
                raise SystemExit(f"{row['image_id']} is there twice")
            with Image.open(output / row["object"]) as image:
                found[row["image_id"]] = np.asarray(image)
    return found


def fill(output: Path) -> float:
    """Occupied slots of all offered ones, from the workers' stamps."""
    import json

    read = [json.loads(path.read_text()) for path in (output / "workers").glob("*.json")]
    return sum(s["occupied"] for s in read) / sum(s["offered"] for s in read)


def main() -> None:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    rows: int = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        source = base / "mixed.parquet"
        write_rows(source, rows)
        started_s = time.monotonic()
        call("run", f"input.path={source}", f"output.path={base / 'peace'}")
        print(f"undisturbed: {time.monotonic() - started_s:.0f} s, fill {fill(base / 'peace'):.1%}")
        disturbed(source, base / "faults", rows)
        peace, faults = pictures(base / "peace"), pictures(base / "faults")
        if set(peace) != set(faults) or len(peace) != rows:
            raise SystemExit(f"{len(peace)} and {len(faults)} pictures; expected {rows} each")
        worst = max(int(np.abs(peace[i].astype(int) - faults[i].astype(int)).max()) for i in peace)
        print(f"{rows} pictures, each once, in both; largest difference {worst} of 255")


if __name__ == "__main__":
    main()
