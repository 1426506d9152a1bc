"""A Stable Diffusion 3 pipeline of a few thousand random weights, for tests that run one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from tests.tiny_model import MAX_TOKENS, SIZE, tokenizer, vae
from tests.tiny_pixart import t5_encoder, t5_tokenizer
from tests.tiny_sdxl import PROJECTION, projecting_encoder

WIDTH = 48
MOST_PATCHES = 32
_CLIP_WIDTHS = (16, 24)


def build_tiny_sd3(
    path: Path,
    *,
    scheduler: dict[str, Any] | None = None,
    in_channels: int = 4,
    shift_factor: float | None = 0.3,
) -> Path:
    """Write a complete model folder to ``path``, always with the same weights.

    By default noise levels are shifted as in Stable Diffusion 3, whatever the size.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words, more_words = tokenizer(), t5_tokenizer()
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(in_channels),
            scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {"shift": 3.0})),
            vae=vae(),
            text_encoder=projecting_encoder(words, _CLIP_WIDTHS[0]),
            tokenizer=words,
            text_encoder_2=projecting_encoder(words, _CLIP_WIDTHS[1]),
            tokenizer_2=tokenizer(),
            text_encoder_3=t5_encoder(more_words, WIDTH),
            tokenizer_3=more_words,
        )
        pipeline.vae.register_to_config(scaling_factor=0.9, shift_factor=shift_factor)
        _make_lively(pipeline, in_channels)
    pipeline.save_pretrained(path)
    return path


def _transformer(in_channels: int) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=SIZE // 2,
        patch_size=2,
        in_channels=in_channels,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * PROJECTION,
        out_channels=4,
        pos_embed_max_size=MOST_PATCHES,
    ).eval()


@torch.no_grad()
def _make_lively(pipeline: StableDiffusion3Pipeline, in_channels: int) -> None:
    """Scale the weights so that texts and steps matter and pixels use their whole range."""
    transformer = pipeline.transformer
    transformer.time_text_embed.text_embedder.linear_2.weight *= 8
    transformer.context_embedder.weight *= 4
    made = transformer(
        hidden_states=torch.randn(1, in_channels, SIZE // 2, SIZE // 2),
        timestep=torch.tensor([500.0]),
        encoder_hidden_states=torch.randn(1, MAX_TOKENS, WIDTH),
        pooled_projections=torch.randn(1, 2 * PROJECTION),
        return_dict=False,
    )[0]
    transformer.proj_out.weight /= made.std()
    latent = torch.randn(1, 4, SIZE // 2, SIZE // 2)
    decoded = pipeline.vae.decode(latent, return_dict=False)[0]
    pipeline.vae.decoder.conv_out.weight /= 2 * decoded.std()
