"""The image autoencoder: its shape, its training and the cached latents it leaves behind.

Owns the stage before diffusion. Everything is measured in model space: pictures are float in
[-1, 1], latents are divided by their measured standard deviation.
"""

import logging
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from models.shapes.draw import CANVASES, Scene, draw, layout, prompt_of, sample_scene
from models.shapes.pace import Pace

log = logging.getLogger(__name__)

BATCH = 8
"""Small: at this stage more steps are worth more than larger ones."""
PEAK_RATE = 2e-3
KL_WEIGHT = 1e-6
PAIRS = 0.65
"""Share of pictures with two items: they are harder to learn."""
SHAPE_WEIGHT = 3.0
"""Weight of a pixel that is not background; shapes cover a tenth of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """Cached latents of one canvas with their prompts, row by row."""

    latents: Tensor
    prompts: list[str]


Cache = dict[tuple[int, int], Captioned]
"""By canvas: height and width in pixels."""


def new_autoencoder() -> Any:
    """4 latent channels, 4 times smaller in each direction, about 1 M parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
    )


def to_model_space(pictures: list[Any]) -> Tensor:
    """uint8 (height, width, 3) arrays as one float tensor (batch, 3, height, width)."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.contiguous().float().div(127.5).sub(1.0)


def random_scene(rng: Random, canvas: tuple[int, int]) -> Scene:
    """A scene of the training split, pairs more often than single items."""
    return sample_scene(rng, items=2 if rng.random() < PAIRS else 1, canvas=canvas)


def reconstruction_loss(vae: Any, pictures: Tensor) -> Tensor:
    """L1 + L2 of the reconstruction and a very small pull of the latents to a unit Gaussian.

    The first pixel of a picture is background, so whatever differs from it is a shape.
    """
    posterior = vae.encode(pictures).latent_dist
    error = (vae.decode(posterior.sample()).sample.float() - pictures).abs()
    shape = (pictures - pictures[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.1
    weight = torch.where(shape, SHAPE_WEIGHT, 1.0)
    loss: Tensor = (weight * (error + error.square())).mean() + KL_WEIGHT * posterior.kl().mean()
    return loss


def train_autoencoder(
    vae: Any, pace: Pace, *, minutes: float, steps: int | None, seed: int
) -> None:
    """Train in place for ``minutes``, or for ``steps`` where given; the rate falls to nothing."""
    torch.manual_seed(seed)
    rng = Random(f"autoencoder {seed}")
    vae.train()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, weight_decay=1e-4)
    started, step, done = time.monotonic(), 0, 0.0
    while done < 1.0:
        canvas = CANVASES[0] if step % 4 else rng.choice(CANVASES)
        rate = PEAK_RATE * min(1.0, (step + 1) / 50) * max(0.02, 1 - done)
        optimiser.param_groups[0]["lr"] = rate
        pictures = _picture_batch(rng, canvas)
        pace.apply()
        loss = _update(vae, optimiser, pictures)
        step += 1
        elapsed = (time.monotonic() - started) / 60
        done = step / steps if steps else elapsed / minutes
        if step % 100 == 0:
            log.info("autoencoder step %d, %.1f min, loss %.4f", step, elapsed, loss)
    log.info("autoencoder ended at step %d with loss %.4f", step, loss)
    vae.eval()


def _update(vae: Any, optimiser: torch.optim.Optimizer, pictures: Tensor) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = reconstruction_loss(vae, pictures)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimiser.step()
    return loss.item()


def _picture_batch(rng: Random, canvas: tuple[int, int]) -> Tensor:
    scenes = [random_scene(rng, canvas) for _ in range(BATCH)]
    return to_model_space([draw(scene, layout(scene, rng)) for scene in scenes])


@torch.no_grad()
def cache_latents(vae: Any, pace: Pace, *, pictures: int, seed: int) -> Cache:
    """Encode freshly drawn training pictures, 60 % square canvases, 20 % of each other one.

    Sets ``vae.config.scaling_factor`` to one over the latents' standard deviation, measured here.
    """
    rng = Random(f"latents {seed}")
    cache: Cache = {}
    for canvas, share in zip(CANVASES, (0.6, 0.2, 0.2), strict=True):
        rows: list[Tensor] = []
        prompts: list[str] = []
        for _ in range(max(1, round(pictures * share / 64))):
            scenes = [random_scene(rng, canvas) for _ in range(64)]
            prompts.extend(prompt_of(scene, rng) for scene in scenes)
            batch = to_model_space([draw(scene, layout(scene, rng)) for scene in scenes])
            pace.apply()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                moments = vae.encode(batch)
            rows.append(moments.latent_dist.mean.half())
        cache[canvas] = Captioned(latents=torch.cat(rows).contiguous(), prompts=prompts)
        log.info("cached %d latents of canvas %s", len(prompts), canvas)
    spread = torch.cat([part.latents.float().flatten() for part in cache.values()]).std()
    vae.register_to_config(scaling_factor=round(1.0 / spread.item(), 5))
    log.info("latent standard deviation %.4f", spread.item())
    return cache
