"""The unmodified diffusers pipeline, as the ways that do without ImageMill use it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.workloads import Row, work
from operators.model_files import resolve_model_path
from operators.samplers import make_scheduler

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Pipeline:
    """A loaded pipeline that writes PNG files below ``folder``, with a clock in its denoiser.

    On a GPU the clock waits for the device before and after each call of the denoiser.
    """

    def __init__(self, model: str, *, precision: str, folder: Path) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
            str(resolve_model_path(model)), dtype=PRECISIONS[precision]
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._scheduler = dict(self._pipeline.scheduler.config)
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._denoiser_s = 0.0
        self._began_s = 0.0
        self._pipeline.unet.register_forward_pre_hook(self._begin)
        self._pipeline.unet.register_forward_hook(self._end)

    def make(self, group: Sequence[Row]) -> list[Row]:
        """Make and write the pictures of rows that are alike; returns a row of metadata for each.

        ``started_s`` and ``finished_s`` are wall clock; ``denoiser_s`` is the image's share of the
        time in the denoiser and ``group`` how many shared it.
        """
        one = group[0]
        started_s, denoiser_s = time.time(), self._denoiser_s
        self._pipeline.scheduler = make_scheduler(self._scheduler, one["sampler"])
        images = self._pipeline(
            [row["prompt"] for row in group],
            height=one["height"],
            width=one["width"],
            num_inference_steps=one["steps"],
            guidance_scale=one["guidance_scale"],
            generator=[torch.Generator("cpu").manual_seed(row["seed"]) for row in group],
        ).images
        for row, image in zip(group, images, strict=True):
            image.save(self._folder / f"{row['id']}.png")
        spent_s = (self._denoiser_s - denoiser_s) / len(group)
        return [
            {
                **row,
                "object": f"{self._folder.name}/{row['id']}.png",
                "started_s": started_s,
                "finished_s": time.time(),
                "denoiser_s": spent_s,
                "group": len(group),
                "work": work(row),
                "threads": torch.get_num_threads(),
            }
            for row in group
        ]

    def _begin(self, *_: object) -> None:
        self._began_s = self._now()

    def _end(self, *_: object) -> None:
        self._denoiser_s += self._now() - self._began_s

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()
