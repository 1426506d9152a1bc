"""Writing the model as an ordinary diffusers folder, all at once.

Owns the folder's format: fp16 safetensors, every part that ``StableDiffusionPipeline`` loads.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from models.shapes.denoiser import new_scheduler
from models.shapes.draw import every_word
from models.shapes.tokenizer import write_slow_files


def export(
    folder: Path, *, vae: Any, unet: Any, text_encoder: Any, tokenizer: CLIPTokenizer
) -> None:
    """Write beside ``folder`` and swap, so that a reader never sees half of a model."""
    fresh, stale = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh.parent.mkdir(parents=True, exist_ok=True)
    pipeline.save_pretrained(fresh, safe_serialization=True)
    write_slow_files(every_word(), fresh / "tokenizer")
    for file in fresh.rglob("*.safetensors"):
        file.chmod(0o644)
    if folder.exists():
        folder.rename(stale)
    fresh.rename(folder)
    shutil.rmtree(stale, ignore_errors=True)
