"""Stable Diffusion 1 and 2: text encoder, UNet and VAE of a diffusers StableDiffusionPipeline.

Does exactly what ``StableDiffusionPipeline.__call__`` does around its scheduler. Knows nothing of
slots, samplers or guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from conf.errors import ModelUnusable
from operators.model_files import ModelFiles


class StableDiffusion:
    """The loaded components, on one device and in one precision."""

    def __init__(self, pipeline: Any, *, device: torch.device) -> None:
        self.device = device
        self._pipeline = pipeline
        self.unet = pipeline.unet
        self.vae = pipeline.vae
        self.text_encoder = pipeline.text_encoder
        self.tokenizer = pipeline.tokenizer
        self.dtype: torch.dtype = pipeline.unet.dtype
        added = pipeline.tokenizer.added_tokens_encoder
        self._has_vector_words = any(f"{word}_1" in added for word in added)

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The configuration that the model was trained with, as the pipeline corrects it."""
        return dict(self._pipeline.scheduler.config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of ``height`` x ``width`` pixels."""
        factor = int(self._pipeline.vae_scale_factor)
        return (int(self.unet.config.in_channels), height // factor, width // factor)

    def count_truncated(self, text: str) -> int:
        """How many tokens of ``text`` the text encoder cannot see."""
        tokens = self.tokenizer(self._written_out(text), verbose=False).input_ids
        return max(0, len(tokens) - int(self.tokenizer.model_max_length))

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings [texts, tokens, width] in the model's precision."""
        inputs = self.tokenizer(
            [self._written_out(text) for text in texts],
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = inputs.attention_mask.to(self.device) if uses_mask else None
        hidden = self.text_encoder(inputs.input_ids.to(self.device), attention_mask=mask)[0]
        return hidden.to(self.dtype)  # type: ignore[no-any-return]

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """The UNet's output, float32, for latents [b, c, h, w] at timesteps [b]."""
        output = self.unet(
            latents.to(self.dtype), timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return output.float()  # type: ignore[no-any-return]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels [b, 3, H, W] from -1 to 1, for finished latents [b, c, h, w]."""
        scaled = latents.to(self.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled, return_dict=False)[0]  # type: ignore[no-any-return]

    def _written_out(self, text: str) -> str:
        """Textual-inversion words of several vectors become several tokens."""
        if not self._has_vector_words:
            return text
        return str(self._pipeline.maybe_convert_prompt(text, self.tokenizer))


def load_stable_diffusion(
    files: ModelFiles, *, dtype: torch.dtype, device: torch.device
) -> StableDiffusion:
    """Load the components from their folder; never from the network.

    Raises:
        ModelUnusable: diffusers cannot load them, or the UNet is of a kind that needs more inputs.
    """
    try:
        with _silent_loading():
            pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
                files.path,
                safety_checker=None,
                feature_extractor=None,
                image_encoder=None,
                requires_safety_checker=False,
                local_files_only=True,
                dtype=dtype,
            )
        pipeline.to(device)
    except Exception as error:
        raise ModelUnusable(
            f"diffusers cannot load the model in {files.path}: {type(error).__name__}: {error}. "
            "Download the model again, or set model.path to another one"
        ) from error
    _check_unet(files, pipeline)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    return StableDiffusion(pipeline, device=device)


def _check_unet(files: ModelFiles, pipeline: Any) -> None:
    config = pipeline.unet.config
    for option in ("time_cond_proj_dim", "class_embed_type", "addition_embed_type"):
        if config.get(option) is not None:
            raise ModelUnusable(
                f"the UNet of {files.path} has {option}={config[option]}; the stepwise engine "
                "gives it a latent, a timestep and a text only. Set model.path to another model"
            )
    latent_channels = pipeline.vae.config.latent_channels
    if config.in_channels != latent_channels:
        raise ModelUnusable(
            f"the UNet of {files.path} takes {config.in_channels} channels, its VAE makes "
            f"{latent_channels}; expected a text-to-image model (not inpainting or upscaling)"
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
