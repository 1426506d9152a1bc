"""The rows that every way is given: uniform, mixed, and mixed within one shape.

Pure apart from writing the Parquet file. The same arguments give the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from examples.make_prompts import prompt
from operators.request import Request

Row = Mapping[str, Any]

STEPS = (10, 15, 20, 25, 30)
GUIDANCE = (1.0, 3.0, 5.0)
SAMPLERS = ("ddim", "euler_ancestral", "dpmpp_2m")
SIZES = ((64, 64), (96, 64))
KINDS: Mapping[str, tuple[tuple[Any, ...], ...]] = {
    "uniform": ((20,), (3.0,), ("ddim",), ((64, 64),)),
    "mixed": (STEPS, GUIDANCE, SAMPLERS, SIZES),
    "one_shape": (STEPS, GUIDANCE, SAMPLERS, ((64, 64),)),
}
"""Step counts, guidance scales, samplers and sizes (width, height) of a workload's rows."""


def rows_of(workload: str, count: int, draw: int = 0) -> list[Row]:
    """Every column drawn by itself; with prompts of the shapes model, no two alike.

    Draws differ in nothing but the prompts: no engine has encoded another draw's.
    """
    rng = random.Random(1)
    steps, guidance, samplers, sizes = KINDS[workload]
    rows: list[Row] = []
    for number in range(count):
        width, height = rng.choice(sizes)
        rows.append(
            {
                "id": f"row-{number:06d}",
                "prompt": f"{prompt(rng)}, {workload[0]}{draw} {number}",
                "seed": number,
                "steps": rng.choice(steps),
                "guidance_scale": rng.choice(guidance),
                "sampler": rng.choice(samplers),
                "width": width,
                "height": height,
            }
        )
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """The rows as a Parquet file."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def read_rows(path: Path) -> list[Row]:
    """All rows of a Parquet file."""
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def passes(row: Row) -> int:
    """Rows of a forward pass that an image needs in one step: two with guidance."""
    return 2 if row["guidance_scale"] > 1 else 1


def work(row: Row) -> int:
    """What an image asks of the denoiser: passes x steps x pixels. The samplers here call the model
    once a step."""
    pixels: int = row["width"] * row["height"]
    return passes(row) * int(row["steps"]) * pixels


def equal_groups(rows: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Rows that one call of a diffusers pipeline can make together, at most ``most``; the kinds in
    the order in which they come first."""
    alike: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        kind = tuple(
            row[name] for name in ("sampler", "steps", "guidance_scale", "width", "height")
        )
        alike.setdefault(kind, []).append(row)
    for group in alike.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]


def requests_of(rows: Sequence[Row]) -> list[Request]:
    """What ImageMill's engine is asked for these rows."""
    return [
        Request(
            image_id=row["id"],
            row_id=number,
            image_index=0,
            negative_prompt="",
            **{name: value for name, value in row.items() if name != "id"},
        )
        for number, row in enumerate(rows)
    ]
