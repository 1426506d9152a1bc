"""Stable Diffusion 1 and 2: text encoder, UNet and VAE of a diffusers StableDiffusionPipeline.

Does exactly what ``StableDiffusionPipeline.__call__`` does around its scheduler. Knows nothing of
slots, samplers or guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from operators.device import to_device
from operators.families.clip_tokens import ClipTokens
from operators.families.family import TEXT_MASK, Tensors, Text
from operators.families.loading import check_latent_channels, load_pipeline, refuse_unet_options
from operators.flow_shift import NoiseLevels
from operators.model_files import ModelFiles


class StableDiffusion:
    """See ``operators.families.family.Family``.

    A text is ``embeddings`` [pieces x tokens, width].
    """

    two_pass_guidance = True

    def __init__(self, pipeline: Any, *, device: torch.device, prompt_pieces: int = 1) -> None:
        self.device = device
        self._pipeline = pipeline
        self.unet = pipeline.unet
        self.vae = pipeline.vae
        self.text_encoder = pipeline.text_encoder
        self.dtype: torch.dtype = pipeline.unet.dtype
        self._tokens = ClipTokens(pipeline, pipeline.tokenizer, most_pieces=prompt_pieces)

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        return dict(self._pipeline.scheduler.config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor = int(self._pipeline.vae_scale_factor)
        return (int(self.unet.config.in_channels), height // factor, width // factor)

    def noise_levels(self, height: int, width: int, steps: int) -> NoiseLevels:
        return NoiseLevels()

    def count_truncated(self, text: Text) -> int:
        return self._tokens.count_truncated(text)

    def pieces(self, text: Text) -> int:
        return self._tokens.pieces(text)

    def embed(self, texts: Sequence[Text]) -> Tensors:
        inputs = self._tokens.read_pieces(texts, self.pieces(texts[0]))
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = to_device(inputs.attention_mask, self.device) if uses_mask else None
        ids = to_device(inputs.input_ids, self.device)
        hidden = self.text_encoder(ids, attention_mask=mask)[0]
        whole = hidden.reshape(len(texts), -1, hidden.shape[-1])
        return {"embeddings": whole.to(self.dtype)}

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        output = self.unet(
            latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=conditioning["embeddings"],
            encoder_attention_mask=conditioning.get(TEXT_MASK),
            return_dict=False,
        )[0]
        return output.float()  # type: ignore[no-any-return]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        scaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled, return_dict=False)[0]  # type: ignore[no-any-return]


def load(
    files: ModelFiles, *, dtype: torch.dtype, device: torch.device, prompt_pieces: int = 1
) -> StableDiffusion:
    """See ``operators.families.load_family``."""
    pipeline = load_pipeline(
        files,
        dtype=dtype,
        device=device,
        modules=("unet", "vae", "text_encoder"),
        options={
            "safety_checker": None,
            "feature_extractor": None,
            "image_encoder": None,
            "requires_safety_checker": False,
        },
    )
    refuse_unet_options(files, pipeline.unet)
    check_latent_channels(files, pipeline.unet, pipeline.vae)
    return StableDiffusion(pipeline, device=device, prompt_pieces=prompt_pieces)
