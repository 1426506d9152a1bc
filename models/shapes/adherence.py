"""Does a picture show what its prompt says? ``python -m models.shapes.adherence`` measures it.

Owns the score of one picture and the table over the held-out prompts. Reading knows nothing of the
model; the model is only run, through diffusers' own ``StableDiffusionPipeline``.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from models.shapes.draw import CANVASES, Pixels, Placed, Scene, held_out_prompts
from models.shapes.reading import Reading, place_of, read_scene, relation_of

__all__ = ["Score", "Sampling", "generate", "measure", "read_scene", "score", "table"]

ATTRIBUTES = ("background", "colours", "shapes", "sizes", "relations", "all_right")
BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What of a scene was right; the wrong number of shapes makes all but the background wrong.

    ``relations`` is the place of a single shape, or the relation of two.
    """

    background: bool
    colours: bool
    shapes: bool
    sizes: bool
    relations: bool

    @property
    def all_right(self) -> bool:
        """Whether every attribute was right."""
        return all(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How pictures are made."""

    steps: int = 20
    guidance: float = 2.0
    sampler: str = "shipped"
    seed: int = 0


def score(pixels: Pixels, scene: Scene) -> Score:
    """Read a (height, width, 3) uint8 picture and hold it against the scene it should show."""
    reading = read_scene(pixels)
    if len(reading.shapes) != len(scene.items):
        right = reading.background == scene.background
        return Score(background=right, colours=False, shapes=False, sizes=False, relations=False)
    candidates = [_compare(reading, order, scene) for order in permutations(reading.shapes)]
    return max(candidates, key=_rights)


def _rights(one: Score) -> int:
    return sum(getattr(one, field.name) for field in fields(one))


def _compare(reading: Reading, order: tuple[Placed, ...], scene: Scene) -> Score:
    """The score if the seen shapes, in this order, are the scene's items."""
    pairs = list(zip((one.item for one in order), scene.items, strict=True))
    if len(order) == 1:
        relations = place_of(reading) == scene.place
    else:
        relations = relation_of(order[0], order[1]) == scene.relation
    return Score(
        background=reading.background == scene.background,
        colours=all(seen.colour == asked.colour for seen, asked in pairs),
        shapes=all(seen.shape == asked.shape for seen, asked in pairs),
        sizes=all(seen.size == asked.size for seen, asked in pairs),
        relations=relations,
    )


def load(weights: Path, sampler: str) -> Any:
    """The pipeline in float32, with the shipped scheduler or a DPM-Solver++ of its schedule."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(weights), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if sampler == "dpm++":
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def generate(
    pipeline: Any, prompts: list[tuple[str, Scene]], sampling: Sampling
) -> Iterator[tuple[int, Pixels]]:
    """Pictures with the index of their prompt, batched by canvas; the seed is the index's own."""
    for height, width in CANVASES:
        chosen = [
            index
            for index, (_, scene) in enumerate(prompts)
            if (scene.height, scene.width) == (height, width)
        ]
        for start in range(0, len(chosen), BATCH):
            rows = chosen[start : start + BATCH]
            made = pipeline(
                [prompts[index][0] for index in rows],
                height=height,
                width=width,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                generator=[_noise(sampling.seed, index) for index in rows],
                output_type="np",
            ).images
            yield from zip(rows, np.round(made * 255).astype(np.uint8), strict=True)


def _noise(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + index)


def measure(
    pipeline: Any, prompts: list[tuple[str, Scene]], sampling: Sampling
) -> list[tuple[Scene, Score]]:
    """Make and score one picture a prompt."""
    return [
        (prompts[index][1], score(pixels, prompts[index][1]))
        for index, pixels in generate(pipeline, prompts, sampling)
    ]


def table(scored: list[tuple[Scene, Score]]) -> list[dict[str, object]]:
    """Share of pictures right, by group and attribute: all, single, pairs, and each canvas."""
    groups: list[tuple[str, list[Score]]] = [("all", [one for _, one in scored])]
    for count, name in ((1, "one shape"), (2, "two shapes")):
        groups.append((name, [one for scene, one in scored if len(scene.items) == count]))
    for canvas in CANVASES:
        chosen = [one for scene, one in scored if (scene.height, scene.width) == canvas]
        groups.append((f"{canvas[0]}x{canvas[1]}", chosen))
    rows: list[dict[str, object]] = []
    for name, scores in groups:
        row: dict[str, object] = {"group": name, "pictures": len(scores)}
        row.update({key: _share(getattr(one, key) for one in scores) for key in ATTRIBUTES})
        rows.append(row)
    return rows


def _share(rights: Iterable[bool]) -> float | None:
    values = list(rights)
    return round(sum(values) / len(values), 4) if values else None


def markdown(rows: list[dict[str, object]]) -> str:
    """The table as Markdown, shares in percent."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [f"{100 * v:.1f}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    usual = Sampling()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--guidance", type=float, default=usual.guidance)
    parser.add_argument("--sampler", choices=("shipped", "dpm++"), default=usual.sampler)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the table here")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    sampling = Sampling(
        steps=chosen.steps, guidance=chosen.guidance, sampler=chosen.sampler, seed=chosen.seed
    )
    prompts = held_out_prompts(chosen.prompts, chosen.seed)
    rows = table(measure(load(chosen.weights, chosen.sampler), prompts, sampling))
    print(markdown(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
