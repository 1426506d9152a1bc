"""Random mixes of rows, as a quote is asked for."""

from __future__ import annotations

from random import Random

from conf.schema import OutputConfig
from jobs.quote.strata import Strata, Stratum
from operators.request import Request
from tests.virtual_engine import weight

TABLE = {1: 0.056, 2: 0.072, 4: 0.096, 8: 0.233, 16: 0.412}
OUTPUT = OutputConfig(path="", format="files", image="png", quality=90, embed_prompt=False)


def some_rows(random: Random) -> list[Request]:
    """A mix of its own: one to four sizes, any steps, guidance and samplers, 100 to 500 rows."""
    sizes = random.sample([(64, 64), (96, 64), (128, 128), (64, 128), (192, 192)], k=4)
    sizes = sizes[: random.randint(1, 4)]
    shares = [random.random() + 0.05 for _ in sizes]
    steps = random.sample(range(4, 51), k=random.randint(1, 5))
    guided = random.random()
    rows = []
    for row_id in range(random.randint(100, 500)):
        width, height = random.choices(sizes, shares)[0]
        rows.append(
            Request(
                image_id=str(row_id),
                row_id=row_id,
                image_index=0,
                prompt="a house",
                negative_prompt="",
                seed=row_id,
                width=width,
                height=height,
                steps=random.choice(steps),
                guidance_scale=4.0 if random.random() < guided else 1.0,
                sampler=random.choice(["ddim", "euler"]),
            )
        )
    return rows


def strata_of(rows: list[Request], random: Random) -> Strata:
    strata = Strata(random)
    for row in rows:
        passes = weight(row)
        stratum = Stratum(
            width=row.width,
            height=row.height,
            steps=row.steps,
            passes=passes,
            sampler=row.sampler,
        )
        strata.add(stratum, row, 1, passes * row.steps * row.width * row.height)
    return strata
