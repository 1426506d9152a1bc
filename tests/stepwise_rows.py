"""Rows for the stepwise engine with a tiny model, and the pictures that diffusers makes of them."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import torch
from diffusers import DiffusionPipeline

from conf.schema import ModelConfig
from operators.engine import EngineInfo
from operators.engines import load_engine
from operators.request import Request
from operators.samplers import make_scheduler
from operators.stepwise_engine import StepwiseEngine
from tests.engine_config import engine_config
from tests.pictured_samplers import SAMPLERS
from tests.tiny_model import MAX_TOKENS, SIZE, build_tiny_stable_diffusion
from tests.tiny_pixart import build_tiny_pixart
from tests.tiny_sdxl import build_tiny_sdxl

TINY_MODELS = {
    "stable_diffusion": (build_tiny_stable_diffusion, MAX_TOKENS),
    "sdxl": (build_tiny_sdxl, MAX_TOKENS),
    "pixart_sigma": (build_tiny_pixart, 300),
}
"""A tiny model of each family, and how many tokens of a prompt it sees."""
AS_WE_CALL_IT = {
    "PixArtSigmaPipeline": {"clean_caption": False, "use_resolution_binning": False},
}
"""Arguments of a pipeline where its family differs from the defaults."""


def load(path, *, engine="stepwise", precision="float32", max_batch=4, **options):
    config = engine_config(engine, precision=precision, max_batch=max_batch, **options)
    return load_engine(config, load_model(path))


def load_model(path):
    return ModelConfig(
        name="tiny",
        path=str(path),
        revision=None,
        config=None,
        width=SIZE,
        height=SIZE,
        steps=5,
        guidance_scale=4.0,
        sampler="ddim",
        needs_gpu=False,
    )


def new_engine(family, *, max_batch=4):
    info = dataclasses.replace(load_info(), max_batch=max_batch)
    return StepwiseEngine(family, info)


def load_info():
    return EngineInfo(
        name="stepwise",
        model="tiny",
        model_revision="0",
        device="cpu",
        precision="float32",
        max_batch=4,
        simulated=False,
    )


def ask(number, **options):
    asked = {
        "prompt": f"a red fox {number % 3}",
        "negative_prompt": "",
        "seed": number,
        "width": SIZE,
        "height": SIZE,
        "steps": 4,
        "guidance_scale": 4.0,
        "sampler": "ddim",
    }
    return Request(image_id=str(number), row_id=number, image_index=0, **(asked | options))


def run(engine, requests):
    """Outcome of each request by row id; each comes back exactly once."""
    engine.admit(requests)
    return drain(engine)


def drain(engine):
    outcomes = []
    while engine.busy:
        outcomes += engine.tick()
    found = {outcome.request.row_id: outcome for outcome in outcomes}
    assert len(found) == len(outcomes)
    return found


def reference(path, requests, **components):
    """The pictures that the folder's own diffusers pipeline makes of each request alone."""
    pipeline = DiffusionPipeline.from_pretrained(path, dtype=torch.float32, **components)
    pipeline.set_progress_bar_config(disable=True)
    config = dict(pipeline.scheduler.config)
    pictures = {}
    for request in requests:
        with warnings.catch_warnings():
            # some schedulers call numpy in a way that numpy announces to change
            warnings.simplefilter("ignore", DeprecationWarning)
            pipeline.scheduler = _as_diffusers_swaps(config, request.sampler)
            made = pipeline(
                request.prompt,
                # an empty negative prompt is none: what the pipeline then does is its own affair
                **({"negative_prompt": request.negative_prompt} if request.negative_prompt else {}),
                height=request.height,
                width=request.width,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                **AS_WE_CALL_IT.get(type(pipeline).__name__, {}),
                generator=torch.Generator("cpu").manual_seed(request.seed),
            )
        pictures[request.row_id] = np.array(made.images[0])
    return pictures


def _as_diffusers_swaps(config, sampler):
    """The scheduler with all options of the model, as from_config leaves them; pipelines read
    there how far they shift."""
    scheduler = make_scheduler(config, sampler)
    unknown = {name: value for name, value in config.items() if name not in scheduler.config}
    scheduler.register_to_config(**unknown)
    return scheduler


def difference(left, right):
    return int(np.abs(left.astype(int) - right.astype(int)).max())


def mixed_requests(samplers=SAMPLERS):
    """These samplers, with different steps, guidance, prompts, seeds and sizes."""
    return [
        ask(
            number,
            sampler=sampler,
            steps=2 + number % 6,
            guidance_scale=(4.0, 0.0, 1.0, 7.5)[number % 4],
            negative_prompt=("", "ugly", "ugly and far too long to be seen whole")[number % 3],
            prompt=("a fox", "un renard 🦊", "a very long text about a fox " * 4)[number % 3],
            width=SIZE * (1 + (number % 5 == 0)),
            seed=2**63 - 1 - number,
        )
        for number, sampler in enumerate(samplers * 2)
    ]
