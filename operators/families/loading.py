"""Loading a diffusers pipeline from its files: in silence, offline, and with words on failure."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from conf.errors import ModelUnusable
from operators.families import REFUSED_UNET_OPTIONS
from operators.model_files import ModelFiles


def load_pipeline(
    files: ModelFiles,
    *,
    dtype: torch.dtype,
    device: torch.device,
    modules: Sequence[str],
    options: dict[str, Any],
) -> Any:
    """The pipeline, its ``modules`` fixed for inference.

    ``options`` go to from_pretrained, or to from_single_file for a checkpoint.

    Raises:
        ModelUnusable: diffusers cannot load it.
    """
    try:
        with silent_diffusers():
            pipeline = _read(files, {"dtype": dtype, "local_files_only": True, **options})
            pipeline.to(device)
    except Exception as error:
        raise ModelUnusable(
            f"diffusers cannot load the model in {files.path}: {type(error).__name__}: {error}. "
            "Download the model again, or set model.path to another one"
        ) from error
    for name in modules:
        getattr(pipeline, name).eval().requires_grad_(False)
    return pipeline


def _read(files: ModelFiles, options: dict[str, Any]) -> Any:
    cls = getattr(diffusers, files.pipeline_class)
    if files.config is None:
        return cls.from_pretrained(files.path, **options)
    if not hasattr(cls, "from_single_file"):
        raise TypeError(f"a {files.pipeline_class} cannot be read from a single file")
    return cls.from_single_file(str(files.path), config=str(files.config), **options)


def refuse_unet_options(files: ModelFiles, unet: Any) -> None:
    """Refuse a UNet that needs inputs which its family's adapter does not give.

    Raises:
        ModelUnusable: the UNet's configuration sets one of ``REFUSED_UNET_OPTIONS``.
    """
    for option in REFUSED_UNET_OPTIONS[files.pipeline_class]:
        if unet.config.get(option) is not None:
            raise ModelUnusable(
                f"the UNet of {files.path} has {option}={unet.config[option]}, an input that the "
                f"stepwise engine does not give to a {files.pipeline_class}. Use engine=pipeline, "
                "or set model.path to another model"
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
def silent_diffusers() -> Iterator[None]:
    """No progress bars, no advice on components that are not even loaded or on future versions."""
    libraries = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    verbosity = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, before in zip(libraries, verbosity, strict=True):
            library.set_verbosity(before)
        for library in shown:
            library.enable_progress_bar()
