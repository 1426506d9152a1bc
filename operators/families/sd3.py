"""Stable Diffusion 3: three text encoders, a transformer and the VAE of StableDiffusion3Pipeline.

Does exactly what ``StableDiffusion3Pipeline.__call__`` does around its scheduler when it is given a
prompt, a negative prompt and a size: all encoders read the same text. Knows nothing of slots,
samplers or guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from operators.device import to_device
from operators.families.clip_tokens import ClipTokens
from operators.families.family import Tensors, Text
from operators.families.loading import check_latent_channels, load_pipeline
from operators.families.patches import check_patches
from operators.families.shifted_latents import check_shift, unshifted
from operators.families.t5_tokens import T5Tokens, check_t5_tokenizer
from operators.flow_shift import NoiseLevels, dynamic_mu
from operators.model_files import COMPONENTS, ModelFiles

T5_TOKENS = 256
"""The pipeline's own ``max_sequence_length``."""
_MAX_SHIFT = 1.16
"""The pipeline's own default, for a scheduler configuration without it."""
_MODULES = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


class StableDiffusion3:
    """See ``operators.families.family.Family``.

    A text is ``embeddings`` [tokens of CLIP and T5, width] and ``pooled`` [both projections]. A
    model without the T5 encoder sees zeros in its place.
    """

    two_pass_guidance = True

    def __init__(self, pipeline: Any, *, device: torch.device) -> None:
        self.device = device
        self._pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae = pipeline.vae
        self.dtype: torch.dtype = pipeline.transformer.dtype
        self._clips = (
            (ClipTokens(pipeline, pipeline.tokenizer), pipeline.text_encoder),
            (ClipTokens(pipeline, pipeline.tokenizer_2), pipeline.text_encoder_2),
        )
        self._t5 = (
            None if pipeline.text_encoder_3 is None else T5Tokens(pipeline.tokenizer_3, T5_TOKENS)
        )

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        return dict(self._pipeline.scheduler.config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor, config = int(self._pipeline.vae_scale_factor), self.transformer.config
        patch = factor * int(config.patch_size)
        check_patches(height, width, multiple=patch, most=patch * int(config.pos_embed_max_size))
        return (int(config.in_channels), height // factor, width // factor)

    def noise_levels(self, height: int, width: int, steps: int) -> NoiseLevels:
        patch = int(self._pipeline.vae_scale_factor) * int(self.transformer.config.patch_size)
        tokens = (height // patch) * (width // patch)
        return NoiseLevels(mu=dynamic_mu(self.scheduler_config, tokens, max_shift=_MAX_SHIFT))

    def count_truncated(self, text: Text) -> int:
        cut_off = [tokens.count_truncated(text) for tokens, _ in self._clips]
        if self._t5 is not None:
            cut_off.append(self._t5.count_truncated(text))
        return min(cut_off)

    def pieces(self, text: Text) -> int:
        return 1

    def embed(self, texts: Sequence[Text]) -> Tensors:
        answers = [
            encoder(to_device(tokens.read(texts).input_ids, self.device), output_hidden_states=True)
            for tokens, encoder in self._clips
        ]
        clip = torch.cat([answer.hidden_states[-2] for answer in answers], dim=-1)
        t5 = self._embed_by_t5(texts)
        clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        pooled = torch.cat([answer.text_embeds for answer in answers], dim=-1)
        return {
            "embeddings": torch.cat([clip, t5], dim=-2).to(self.dtype),
            "pooled": pooled.to(self.dtype),
        }

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        output = self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=conditioning["embeddings"],
            pooled_projections=conditioning["pooled"],
            return_dict=False,
        )[0]
        return output.float()  # type: ignore[no-any-return]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(unshifted(latents, self.vae), return_dict=False)[0]  # type: ignore[no-any-return]

    def _embed_by_t5(self, texts: Sequence[Text]) -> torch.Tensor:
        """[texts, tokens, width]."""
        if self._t5 is None:
            width = int(self.transformer.config.joint_attention_dim)
            return torch.zeros(len(texts), T5_TOKENS, width, device=self.device)
        ids = to_device(self._t5.read(texts).input_ids, self.device)
        return self._pipeline.text_encoder_3(ids)[0]  # type: ignore[no-any-return]


def load(files: ModelFiles, *, dtype: torch.dtype, device: torch.device) -> StableDiffusion3:
    """See ``operators.families.load_family``."""
    if "text_encoder_3" in files.components:
        check_t5_tokenizer(files.layout / "tokenizer_3")
    left_out = [name for name in COMPONENTS[files.pipeline_class] if name not in files.components]
    pipeline = load_pipeline(
        files,
        dtype=dtype,
        device=device,
        modules=[name for name in _MODULES if name in files.components],
        options=dict.fromkeys(("feature_extractor", "image_encoder", *left_out)),
    )
    check_latent_channels(files, pipeline.transformer, pipeline.vae)
    check_shift(files, pipeline.vae)
    return StableDiffusion3(pipeline, device=device)
