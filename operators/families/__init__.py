"""Adapters: what a family of models needs to be run step by step. One file a family."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from conf.errors import ModelUnusable

if TYPE_CHECKING:
    import torch

    from operators.families.family import Family
    from operators.model_files import ModelFiles

FAMILIES = {
    "StableDiffusionPipeline": "operators.families.stable_diffusion",
    "StableDiffusionXLPipeline": "operators.families.sdxl",
    "StableDiffusion3Pipeline": "operators.families.sd3",
    "FluxPipeline": "operators.families.flux",
    "PixArtSigmaPipeline": "operators.families.pixart_sigma",
}
"""Which module runs each pipeline class of ``operators.model_files.COMPONENTS``."""
REFUSED_UNET_OPTIONS = {
    "StableDiffusionPipeline": ("time_cond_proj_dim", "class_embed_type", "addition_embed_type"),
    "StableDiffusionXLPipeline": ("time_cond_proj_dim", "class_embed_type"),
}
"""Options that ask for inputs of the UNet which its family's adapter does not give."""


READ_IN_PIECES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""Families whose text encoders can be given a long prompt in several pieces."""


def load_family(
    files: ModelFiles, *, dtype: torch.dtype, device: torch.device, prompt_pieces: int = 1
) -> Family:
    """Load a model with the adapter of its pipeline class; never from the network.

    Args:
        prompt_pieces: most pieces of a prompt, for families of ``READ_IN_PIECES``.

    Raises:
        ModelUnusable: diffusers cannot load it, or it needs inputs that the adapter does not give;
            or there is no adapter.
    """
    if files.pipeline_class not in FAMILIES:
        raise no_adapter(files)
    # imported by name and late: a family that is not used costs nothing
    module = importlib.import_module(FAMILIES[files.pipeline_class])
    pieces = {"prompt_pieces": prompt_pieces} if files.pipeline_class in READ_IN_PIECES else {}
    family: Family = module.load(files, dtype=dtype, device=device, **pieces)
    return family


def no_adapter(files: ModelFiles) -> ModelUnusable:
    """The error for a model that the stepwise engine cannot run."""
    return ModelUnusable(
        f"the model in {files.path} is a {files.pipeline_class}; the stepwise engine has adapters "
        f"for {', '.join(FAMILIES)}. Use engine=auto or engine=pipeline, or set model.path to one "
        "of these"
    )
