"""Who takes part: the names of the ways, and the program of each."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from benchmarks.ways import imagemill
from benchmarks.ways.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """``module``: the program; None is ImageMill itself."""

    name: str
    title: str
    precision: str
    module: str | None

    def command(self, task: Task) -> list[str]:
        """The command line of a whole run."""
        if self.module is None:
            return imagemill.command(task)
        return [sys.executable, "-m", f"benchmarks.ways.{self.module}", *task.arguments()]


def _ways() -> tuple[Way, ...]:
    exact, fast = "float32", "bfloat16"
    loop, groups, ray = "diffusers_loop", "diffusers_sorted", "ray_data"
    return (
        Way(name="loop", title="diffusers, a loop", precision=exact, module=loop),
        Way(name="sorted", title="diffusers, rows sorted", precision=exact, module=groups),
        Way(name="ray", title="Ray Data", precision=exact, module=ray),
        Way(name="exact", title="ImageMill exact", precision=exact, module=None),
        Way(name="sorted_bf16", title="diffusers, sorted, bf16", precision=fast, module=groups),
        Way(name="ray_bf16", title="Ray Data, bf16", precision=fast, module=ray),
        Way(name="fast", title="ImageMill fast", precision=fast, module=None),
    )


WAYS = {way.name: way for way in _ways()}
