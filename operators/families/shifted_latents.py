"""Latents of the VAEs that shift them: those of Stable Diffusion 3 and Flux."""

from __future__ import annotations

from typing import Any

import torch

from conf.errors import ModelUnusable
from operators.model_files import ModelFiles


def unshifted(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Finished latents [b, c, h, w] as the VAE decodes them, in its precision."""
    scaled = latents.to(vae.dtype) / vae.config.scaling_factor
    return scaled + vae.config.shift_factor  # type: ignore[no-any-return]


def check_shift(files: ModelFiles, vae: Any) -> None:
    """Refuse a VAE of another family.

    Raises:
        ModelUnusable: it does not say how far it shifts latents.
    """
    if vae.config.shift_factor is None:
        raise ModelUnusable(
            f"the VAE of {files.path} has no shift_factor; expected the VAE of a "
            f"{files.pipeline_class}, which shifts its latents. Set model.path to another model"
        )
