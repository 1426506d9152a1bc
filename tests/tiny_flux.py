"""A Flux pipeline of a few thousand random weights, for tests that run one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tests.tiny_model import MAX_TOKENS, SIZE, text_encoder, tokenizer, vae
from tests.tiny_pixart import t5_encoder, t5_tokenizer

WIDTH = 24
POOLED = 16
DYNAMIC_SHIFT = {
    "use_dynamic_shifting": True,
    "base_image_seq_len": 16,
    "max_image_seq_len": 128,
    "base_shift": 0.5,
    "max_shift": 1.4,
}
"""Of a model whose largest image is as small as those of the tests."""


def build_tiny_flux(
    path: Path,
    *,
    guidance_embeds: bool = True,
    scheduler: dict[str, Any] | None = None,
    in_channels: int = 16,
    shift_factor: float | None = 0.3,
) -> Path:
    """Write a complete model folder to ``path``, always with the same weights.

    By default in the form of FLUX.1-dev; FLUX.1-schnell has neither ``guidance_embeds`` nor a
    dynamic shift in its ``scheduler``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words, more_words = tokenizer(), t5_tokenizer()
        options = DYNAMIC_SHIFT if scheduler is None else scheduler
        pipeline = FluxPipeline(
            transformer=_transformer(guidance_embeds, in_channels),
            scheduler=FlowMatchEulerDiscreteScheduler(**options),
            vae=vae(),
            text_encoder=text_encoder(words),
            tokenizer=words,
            text_encoder_2=t5_encoder(more_words, WIDTH),
            tokenizer_2=more_words,
        )
        pipeline.vae.register_to_config(scaling_factor=0.9, shift_factor=shift_factor)
        _make_lively(pipeline, in_channels)
    pipeline.save_pretrained(path)
    return path


def _transformer(guidance_embeds: bool, in_channels: int) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=in_channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=POOLED,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    ).eval()


@torch.no_grad()
def _make_lively(pipeline: FluxPipeline, in_channels: int) -> None:
    """Scale the weights so that texts, guidance and steps matter and pixels use their range."""
    transformer, guided = pipeline.transformer, pipeline.transformer.config.guidance_embeds
    transformer.time_text_embed.text_embedder.linear_2.weight *= 8
    if guided:
        transformer.time_text_embed.guidance_embedder.linear_2.weight *= 8
    transformer.context_embedder.weight *= 4
    tokens = (SIZE // 4) ** 2
    made = transformer(
        hidden_states=torch.randn(1, tokens, in_channels),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([4.0]) if guided else None,
        encoder_hidden_states=torch.randn(1, MAX_TOKENS, WIDTH),
        pooled_projections=torch.randn(1, POOLED),
        txt_ids=torch.zeros(MAX_TOKENS, 3),
        img_ids=torch.zeros(tokens, 3),
        return_dict=False,
    )[0]
    transformer.proj_out.weight /= made.std()
    latent = torch.randn(1, 4, SIZE // 2, SIZE // 2)
    decoded = pipeline.vae.decode(latent, return_dict=False)[0]
    pipeline.vae.decoder.conv_out.weight /= 2 * decoded.std()
