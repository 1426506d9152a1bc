"""PixArt-Sigma: a T5 text encoder, a transformer and the VAE of a diffusers PixArtSigmaPipeline.

Does what ``PixArtSigmaPipeline.__call__`` does around its scheduler with ``clean_caption=False``
and ``use_resolution_binning=False``: prompts are lower-cased and stripped, not rewritten, and an
image is made at the size that its row asks for. Knows nothing of slots, samplers or guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conf.errors import ModelUnusable
from operators.device import to_device
from operators.families.family import Tensors, Text
from operators.families.loading import check_latent_channels, load_pipeline
from operators.families.patches import check_patches
from operators.families.t5_tokens import T5Tokens, check_t5_tokenizer
from operators.flow_shift import NoiseLevels
from operators.model_files import ModelFiles

MAX_TOKENS = 300
"""The pipeline's own ``max_sequence_length``."""


class PixArtSigma:
    """See ``operators.families.family.Family``.

    A text is ``embeddings`` [tokens, width] and ``mask`` [tokens], 1 where there is a token.
    """

    two_pass_guidance = True

    def __init__(self, pipeline: Any, *, device: torch.device) -> None:
        self.device = device
        self._pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae = pipeline.vae
        self.text_encoder = pipeline.text_encoder
        self.dtype: torch.dtype = pipeline.transformer.dtype
        self._tokens = T5Tokens(pipeline.tokenizer, MAX_TOKENS)

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        return dict(self._pipeline.scheduler.config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor, config = int(self._pipeline.vae_scale_factor), self.transformer.config
        check_patches(height, width, multiple=factor * int(config.patch_size))
        return (int(config.in_channels), height // factor, width // factor)

    def noise_levels(self, height: int, width: int, steps: int) -> NoiseLevels:
        return NoiseLevels()

    def count_truncated(self, text: Text) -> int:
        return self._tokens.count_truncated(_plain(text))

    def pieces(self, text: Text) -> int:
        return 1

    def embed(self, texts: Sequence[Text]) -> Tensors:
        inputs = self._tokens.read([_plain(text) for text in texts])
        mask = to_device(inputs.attention_mask, self.device)
        ids = to_device(inputs.input_ids, self.device)
        hidden = self.text_encoder(ids, attention_mask=mask)[0]
        return {"embeddings": hidden.to(self.dtype), "mask": mask}

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        output = self.transformer(
            latents.to(self.dtype),
            encoder_hidden_states=conditioning["embeddings"],
            encoder_attention_mask=conditioning["mask"],
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        # a learned variance follows the noise; no scheduler of ours takes it
        return output[:, : latents.shape[1]].float()  # type: ignore[no-any-return]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        scaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled, return_dict=False)[0]  # type: ignore[no-any-return]


def load(files: ModelFiles, *, dtype: torch.dtype, device: torch.device) -> PixArtSigma:
    """See ``operators.families.load_family``."""
    check_t5_tokenizer(files.layout / "tokenizer")
    pipeline = load_pipeline(
        files,
        dtype=dtype,
        device=device,
        modules=("transformer", "vae", "text_encoder"),
        options={},
    )
    check_latent_channels(files, pipeline.transformer, pipeline.vae)
    if pipeline.transformer.use_additional_conditions:
        raise ModelUnusable(
            f"the transformer of {files.path} has use_additional_conditions, as PixArt-Alpha has; "
            "expected a PixArt-Sigma, which is told no resolution. Set model.path to another model"
        )
    return PixArtSigma(pipeline, device=device)


def _plain(text: Text) -> str:
    return (text or "").lower().strip()
