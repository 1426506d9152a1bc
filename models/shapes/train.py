"""The recipe: ``python -m models.shapes.train --out DIR`` trains the whole model from nothing.

Owns the order of the stages (tokenizer, autoencoder, cached latents, text encoder, denoiser) and
what each one leaves in the working folder. With ``--resume`` a finished stage is read back instead
of repeated.
"""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from models.shapes.autoencoder import (
    Cache,
    Captioned,
    cache_latents,
    new_autoencoder,
    train_autoencoder,
)
from models.shapes.comprehension import teach
from models.shapes.denoiser import Batches, Budget, Denoiser, train_denoiser
from models.shapes.draw import CANVASES, every_word
from models.shapes.export import export
from models.shapes.pace import Pace
from models.shapes.tokenizer import build_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to train, for how long, and where it goes."""

    out: Path
    work: Path
    minutes_vae: float = 10.0
    minutes: float = 85.0
    steps: int | None = None
    steps_vae: int | None = None
    steps_text: int = 800
    pictures: int = 30_000
    batch: int = 32
    save_every_s: float = 240.0
    seed: int = 0
    threads: int = 2
    resume: bool = False


def run(recipe: Recipe) -> list[float]:
    """Train all stages and leave a diffusers folder at ``recipe.out``; returns the losses."""
    torch.manual_seed(recipe.seed)
    recipe.work.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(every_word())
    pace = Pace(recipe.threads)
    vae = _autoencoder(recipe, pace)
    denoiser = Denoiser(tokenizer, recipe.seed)
    state = recipe.work / "denoiser.pt"
    if recipe.resume and state.exists():
        denoiser.load(state)
        log.info("went on from step %d", denoiser.step)
    else:
        teach(
            denoiser.networks["text_encoder"], tokenizer, steps=recipe.steps_text, seed=recipe.seed
        )
        denoiser.forget_average()
    cache = _latents(recipe, vae, pace)

    def save(current: Denoiser) -> None:
        current.save(state)
        unet, text_encoder = current.averaged()
        export(recipe.out, vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer)
        log.info("exported step %d to %s", current.step, recipe.out)

    save(denoiser)
    batches = Batches(cache, tokenizer, scale=vae.config.scaling_factor, size=recipe.batch)
    budget = Budget(minutes=recipe.minutes, steps=recipe.steps, save_every_s=recipe.save_every_s)
    return train_denoiser(denoiser, batches, budget, pace, save)


def _autoencoder(recipe: Recipe, pace: Pace) -> Any:
    """A new one, or with ``resume`` the last one; either is trained for the minutes given."""
    folder = recipe.work / "vae"
    going_on = recipe.resume and folder.exists()
    vae = AutoencoderKL.from_pretrained(folder) if going_on else new_autoencoder()
    if recipe.minutes_vae > 0:
        (recipe.work / "latents.pt").unlink(missing_ok=True)
        seed = recipe.seed + int(going_on)
        train_autoencoder(vae, pace, minutes=recipe.minutes_vae, steps=recipe.steps_vae, seed=seed)
        vae.save_pretrained(folder)
    return vae.eval()


def _latents(recipe: Recipe, vae: Any, pace: Pace) -> Cache:
    """Latents of freshly drawn pictures, or those this very autoencoder left earlier."""
    file = recipe.work / "latents.pt"
    if recipe.resume and file.exists():
        saved = torch.load(file, weights_only=True)
        vae.register_to_config(scaling_factor=saved["scaling_factor"])
        parts = zip(CANVASES, saved["latents"], saved["prompts"], strict=True)
        return {canvas: Captioned(latents=rows, prompts=texts) for canvas, rows, texts in parts}
    cache = cache_latents(vae, pace, pictures=recipe.pictures, seed=recipe.seed)
    saved = {
        "scaling_factor": vae.config.scaling_factor,
        "latents": [part.latents for part in cache.values()],
        "prompts": [part.prompts for part in cache.values()],
    }
    torch.save(saved, file)
    return cache


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    usual = Recipe(out=Path(), work=Path("build/shapes"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the diffusers folder to write")
    parser.add_argument("--work", type=Path, default=usual.work, help="run state")
    parser.add_argument("--minutes-vae", type=float, default=usual.minutes_vae)
    parser.add_argument("--minutes", type=float, default=usual.minutes, help="of the denoiser")
    parser.add_argument("--steps", type=int, help="of the denoiser, instead of --minutes")
    parser.add_argument("--steps-vae", type=int, help="instead of --minutes-vae")
    parser.add_argument("--steps-text", type=int, default=usual.steps_text)
    parser.add_argument("--pictures", type=int, default=usual.pictures, help="cached latents")
    parser.add_argument("--batch", type=int, default=usual.batch, help="of the denoiser")
    parser.add_argument("--save-every-s", type=float, default=usual.save_every_s)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--threads", type=int, default=usual.threads)
    parser.add_argument("--resume", action="store_true")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run(Recipe(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
