"""Ways 4 and 5: ``imagemill run``, exact or fast; the settings of each, and the command."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks.ways.task import Task

PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "float32": ("engine.precision=float32", "engine.compile=off"),
    "bfloat16": ("engine.precision=bfloat16", "engine.compile=full"),
}
"""What ImageMill is told for each precision."""


def settings(task: Task) -> list[str]:
    """The job as ``key=value``."""
    return [
        f"input.path={task.rows}",
        f"output.path={task.output}",
        f"model.path={task.model}",
        f"engine.max_batch={task.batch}",
        *PRECISIONS[task.precision],
    ]


def command(task: Task) -> list[str]:
    """The command line of a whole run."""
    return [sys.executable, "-m", "jobs.entry", "run", *settings(task)]
