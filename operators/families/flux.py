"""Flux: a CLIP and a T5 text encoder, a transformer and the VAE of a diffusers FluxPipeline.

Does exactly what ``FluxPipeline.__call__`` does around its scheduler when it is given a prompt and
a size: both encoders read the same text, and ``true_cfg_scale`` is 1, so that guidance is a number
that the transformer is told (FLUX.1-dev) or not even that (FLUX.1-schnell). Knows nothing of slots
or samplers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from operators.device import to_device
from operators.families.clip_tokens import ClipTokens
from operators.families.family import GUIDANCE, Tensors, Text
from operators.families.loading import check_latent_channels, load_pipeline
from operators.families.patches import check_patches
from operators.families.shifted_latents import check_shift, unshifted
from operators.families.t5_tokens import T5Tokens, check_t5_tokenizer
from operators.flow_shift import NoiseLevels, dynamic_mu, even_sigmas
from operators.model_files import ModelFiles

T5_TOKENS = 512
"""The pipeline's own ``max_sequence_length``."""
_PATCH = 2
"""A token of the transformer is a patch of 2 x 2 latent pixels, all channels of it."""


class Flux:
    """See ``operators.families.family.Family``.

    A text is ``embeddings`` [tokens, width] of T5 and ``pooled`` [width] of CLIP.
    """

    two_pass_guidance = False

    def __init__(self, pipeline: Any, *, device: torch.device) -> None:
        self.device = device
        self._pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae = pipeline.vae
        self.dtype: torch.dtype = pipeline.transformer.dtype
        self._clip = ClipTokens(pipeline, pipeline.tokenizer)
        self._t5 = T5Tokens(pipeline.tokenizer_2, T5_TOKENS)

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        return dict(self._pipeline.scheduler.config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor = int(self._pipeline.vae_scale_factor)
        check_patches(height, width, multiple=factor * _PATCH)
        channels = int(self.transformer.config.in_channels) // _PATCH**2
        return (channels, height // factor, width // factor)

    def noise_levels(self, height: int, width: int, steps: int) -> NoiseLevels:
        side = int(self._pipeline.vae_scale_factor) * _PATCH
        mu = dynamic_mu(self.scheduler_config, (height // side) * (width // side))
        return NoiseLevels(mu=mu, sigmas=even_sigmas(steps))

    def count_truncated(self, text: Text) -> int:
        return min(self._t5.count_truncated(text), self._clip.count_truncated(text))

    def pieces(self, text: Text) -> int:
        return 1

    def embed(self, texts: Sequence[Text]) -> Tensors:
        clip_ids = to_device(self._clip.read(texts).input_ids, self.device)
        t5_ids = to_device(self._t5.read(texts).input_ids, self.device)
        return {
            "embeddings": self._pipeline.text_encoder_2(t5_ids)[0].to(self.dtype),
            "pooled": self._pipeline.text_encoder(clip_ids).pooler_output.to(self.dtype),
        }

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        rows, columns = (side // _PATCH for side in latents.shape[-2:])
        packed = pixel_unshuffle(latents.to(self.dtype), _PATCH).flatten(2).transpose(1, 2)
        told = conditioning[GUIDANCE] if self.transformer.config.guidance_embeds else None
        output = self.transformer(
            hidden_states=packed,
            timestep=timesteps.to(self.dtype) / 1000,
            guidance=told,
            encoder_hidden_states=conditioning["embeddings"],
            pooled_projections=conditioning["pooled"],
            img_ids=self._image_ids(rows, columns),
            txt_ids=torch.zeros(T5_TOKENS, 3, dtype=self.dtype, device=self.device),
            return_dict=False,
        )[0]
        patches = output.transpose(1, 2).unflatten(2, (rows, columns))
        return pixel_shuffle(patches, _PATCH).float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(unshifted(latents, self.vae), return_dict=False)[0]  # type: ignore[no-any-return]

    def _image_ids(self, rows: int, columns: int) -> torch.Tensor:
        """0, row and column of each patch, [rows * columns, 3]."""
        places = [torch.arange(side, device=self.device) for side in (rows, columns)]
        row, column = torch.meshgrid(*places, indexing="ij")
        ids = torch.stack([torch.zeros_like(row), row, column], dim=-1)
        return ids.flatten(0, 1).to(self.dtype)


def load(files: ModelFiles, *, dtype: torch.dtype, device: torch.device) -> Flux:
    """See ``operators.families.load_family``."""
    check_t5_tokenizer(files.layout / "tokenizer_2")
    pipeline = load_pipeline(
        files,
        dtype=dtype,
        device=device,
        modules=("transformer", "vae", "text_encoder", "text_encoder_2"),
        options={"feature_extractor": None, "image_encoder": None},
    )
    check_latent_channels(files, pipeline.transformer, pipeline.vae, packed=_PATCH**2)
    check_shift(files, pipeline.vae)
    return Flux(pipeline, device=device)
