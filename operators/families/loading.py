"""Loading a diffusers pipeline from its folder: in silence, offline, and with words on failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from conf.errors import ModelUnusable
from operators.model_files import ModelFiles


def load_pipeline(
    files: ModelFiles,
    *,
    dtype: torch.dtype,
    device: torch.device,
    modules: Sequence[str],
    options: dict[str, Any],
) -> Any:
    """The pipeline, its ``modules`` fixed for inference; ``options`` go to from_pretrained.

    Raises:
        ModelUnusable: diffusers cannot load it.
    """
    try:
        with _silent_loading():
            pipeline = getattr(diffusers, files.pipeline_class).from_pretrained(
                files.path, local_files_only=True, dtype=dtype, **options
            )
        pipeline.to(device)
    except Exception as error:
        raise ModelUnusable(
            f"diffusers cannot load the model in {files.path}: {type(error).__name__}: {error}. "
            "Download the model again, or set model.path to another one"
        ) from error
    for name in modules:
        getattr(pipeline, name).eval().requires_grad_(False)
    return pipeline


def refuse_unet_options(files: ModelFiles, unet: Any, refused: Sequence[str]) -> None:
    """Refuse a UNet that needs inputs which its family's adapter does not give.

    Raises:
        ModelUnusable: the UNet's configuration sets one of the ``refused`` options.
    """
    for option in refused:
        if unet.config.get(option) is not None:
            raise ModelUnusable(
                f"the UNet of {files.path} has {option}={unet.config[option]}, an input that the "
                f"stepwise engine does not give to a {files.pipeline_class}. Set model.path to "
                "another model"
            )


def check_latent_channels(files: ModelFiles, denoiser: Any, vae: Any, *, packed: int = 1) -> None:
    """Refuse a denoiser that takes more than a latent, of which it sees ``packed`` pixels as one.

    Raises:
        ModelUnusable: it takes other channels than the VAE makes.
    """
    made = packed * vae.config.latent_channels
    if denoiser.config.in_channels != made:
        raise ModelUnusable(
            f"the denoiser of {files.path} takes {denoiser.config.in_channels} channels, its VAE "
            f"makes {made}; expected a text-to-image model (not inpainting "
            "or upscaling)"
        )


@contextmanager
def _silent_loading() -> Iterator[None]:
    """No progress bars, and no advice on components that are not even loaded."""
    libraries = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for library in shown:
            library.enable_progress_bar()
