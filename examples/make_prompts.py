"""Writes examples/prompts.parquet: 48 prompts for the shapes model that differ in every column.

Run as ``python -m examples.make_prompts``.
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = ("black", "white", "gray")
RELATIONS = ("left of", "right of", "above", "below")
SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "pndm")
SIZES = ((64, 64), (64, 64), (64, 96), (96, 64))
COUNT = 48


def prompt(rng: random.Random) -> str:
    """One sentence of the shapes model's grammar."""
    background = rng.choice(BACKGROUNDS)
    if rng.random() < 0.5:
        thing = f"{rng.choice(('small', 'large'))} {rng.choice(COLOURS)} {rng.choice(SHAPES)}"
        return f"a {thing} on a {background} background"
    first, second = rng.sample(COLOURS, 2)
    relation = rng.choice(RELATIONS)
    return (
        f"a small {first} {rng.choice(SHAPES)} {relation} a large {second} {rng.choice(SHAPES)} "
        f"on a {background} background"
    )


def rows() -> list[dict[str, object]]:
    """The example's rows; the same every time."""
    rng = random.Random(7)
    found: list[dict[str, object]] = []
    for number in range(COUNT):
        width, height = rng.choice(SIZES)
        found.append(
            {
                "id": f"example-{number:02d}",
                "prompt": prompt(rng),
                "seed": number,
                "width": width,
                "height": height,
                "steps": rng.choice((15, 20, 25, 30)),
                "guidance_scale": rng.choice((1.5, 2.0, 3.0)),
                "sampler": rng.choice(SAMPLERS),
                "label": {"split": rng.choice(("train", "test")), "number": number},
            }
        )
    return found


def main() -> None:
    """Write the Parquet file beside this one."""
    target = Path(__file__).parent / "prompts.parquet"
    pq.write_table(pa.Table.from_pylist(rows()), target)
    print(f"wrote {COUNT} prompts to {target}")


if __name__ == "__main__":
    main()
