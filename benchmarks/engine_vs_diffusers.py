"""The stepwise engine against diffusers on mixed rows, in turns within one run.

    python benchmarks/engine_vs_diffusers.py --images 24 --turns 2

Three ways to make the same pictures:

- ``stepwise``: the engine, all rows together.
- ``one by one``: ``StableDiffusionPipeline`` called once a row.
- ``equal groups``: ``StableDiffusionPipeline`` called on rows that share sampler, steps, guidance
  and size, at most ``--batch`` at once: what plain batching can do.

Turns alternate (A B C A B C), so that a busy neighbour disturbs all alike. Prints images a second
and ratios of the medians, and the largest difference of any channel.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import torch

from conf.schema import ModelConfig
from jobs.configure import compose
from operators.engine import ImageResult, Pixels
from operators.engines import load_engine
from operators.model_files import describe_model
from operators.request import Request
from operators.samplers import make_scheduler

Pictures = dict[int, Pixels]


def mixed_rows(count: int, *, side: int, seed: int = 0) -> list[Request]:
    """Rows as data teams ask for them: few of them are alike."""
    chance = random.Random(seed)
    return [
        Request(
            image_id=str(number),
            row_id=number,
            image_index=0,
            prompt=f"a {chance.choice(['red', 'blue', 'green'])} circle {number}",
            negative_prompt="",
            seed=number,
            width=side,
            height=side,
            steps=chance.choice([10, 15, 20, 25, 30]),
            guidance_scale=chance.choice([1.0, 3.0, 4.0, 7.5]),
            sampler=chance.choice(["ddim", "euler", "dpmpp_2m", "unipc"]),
        )
        for number in range(count)
    ]


def run_stepwise(model: str, batch: int) -> Callable[[Sequence[Request]], Pictures]:
    engine = load_engine(
        replace(
            compose(["input.path=none", "output.path=none"]).engine,
            precision="float32",
            compile="off",
            max_batch=batch,
            max_pixels=1 << 24,
        ),
        ModelConfig(
            name="benchmark",
            path=model,
            revision=None,
            config=None,
            width=64,
            height=64,
            steps=20,
            guidance_scale=4.0,
            sampler="ddim",
            needs_gpu=False,
        ),
    )

    def run(rows: Sequence[Request]) -> Pictures:
        waiting, made = list(rows), {}
        before = engine.stats
        while waiting or engine.busy:
            room = engine.room
            engine.admit(waiting[:room])
            del waiting[:room]
            for outcome in engine.tick():
                assert isinstance(outcome, ImageResult), outcome
                made[outcome.request.row_id] = outcome.pixels
        after = engine.stats
        fill = (after.occupied - before.occupied) / (after.offered - before.offered)
        print(f"  stepwise fill: {fill:.0%} of {batch} slots")
        return made

    return run


def run_diffusers(pipeline: Any, batch: int) -> Callable[[Sequence[Request]], Pictures]:
    config = dict(pipeline.scheduler.config)

    def run(rows: Sequence[Request]) -> Pictures:
        made: Pictures = {}
        for group in equal_groups(rows, batch):
            one = group[0]
            pipeline.scheduler = make_scheduler(config, one.sampler)
            images = pipeline(
                [row.prompt for row in group],
                negative_prompt=[row.negative_prompt for row in group],
                height=one.height,
                width=one.width,
                num_inference_steps=one.steps,
                guidance_scale=one.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(row.seed) for row in group],
            ).images
            made |= {row.row_id: np.array(im) for row, im in zip(group, images, strict=True)}
        return made

    return run


def equal_groups(rows: Sequence[Request], batch: int) -> Iterator[list[Request]]:
    alike: dict[tuple[object, ...], list[Request]] = {}
    for row in rows:
        key = (row.sampler, row.steps, row.guidance_scale, row.width, row.height)
        alike.setdefault(key, []).append(row)
    for group in alike.values():
        for start in range(0, len(group), batch):
            yield group[start : start + batch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:models/shapes/weights")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        describe_model(arguments.model).path,
        safety_checker=None,
        requires_safety_checker=False,
        dtype=torch.float32,
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    ways = {
        "stepwise": run_stepwise(arguments.model, arguments.batch),
        "one by one": run_diffusers(pipeline, 1),
        "equal groups": run_diffusers(pipeline, arguments.batch),
    }
    compare(ways, mixed_rows(arguments.images, side=arguments.side), arguments.turns)


def compare(
    ways: dict[str, Callable[[Sequence[Request]], Pictures]], rows: Sequence[Request], turns: int
) -> None:
    """Warm up, then time the ways in turns and print what was found."""
    pictures = {name: run(rows[:4]) for name, run in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, run in ways.items():
            start = time.perf_counter()
            pictures[name] = run(rows)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    for name, median in medians.items():
        each = ", ".join(f"{spent:.2f}" for spent in seconds[name])
        print(f"{name:>12}: {len(rows) / median:6.2f} images/s (seconds: {each})")
    for name in ("one by one", "equal groups"):
        gaps = [
            int(np.abs(pictures[name][n].astype(int) - pixels.astype(int)).max())
            for n, pixels in pictures["stepwise"].items()
        ]
        print(
            f"stepwise is {medians[name] / medians['stepwise']:.2f} times as fast as {name}; "
            f"largest difference of a channel: {max(gaps)}/255"
        )


if __name__ == "__main__":
    main()
