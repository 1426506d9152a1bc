"""A Stable Diffusion XL pipeline of a few thousand random weights, for tests that run one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from tests.tiny_model import MAX_TOKENS, SIZE, text_encoder, tokenizer, vae

PROJECTION = 12
_SECOND_WIDTH = 24
_TIME_WIDTH = 8


def build_tiny_sdxl(
    path: Path,
    *,
    force_zeros: bool = True,
    vae_options: dict[str, Any] | None = None,
    time_ids: int = 6,
) -> Path:
    """Write a complete model folder to ``path``, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = tokenizer()
        pipeline = StableDiffusionXLPipeline(
            vae=vae(),
            text_encoder=text_encoder(words),
            text_encoder_2=projecting_encoder(words, _SECOND_WIDTH),
            tokenizer=words,
            tokenizer_2=tokenizer(),
            unet=_unet(time_ids),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
            ),
            force_zeros_for_empty_prompt=force_zeros,
            add_watermarker=False,
        )
        _make_lively(pipeline, time_ids)
        pipeline.vae.register_to_config(**(vae_options or {}))
    pipeline.save_pretrained(path)
    return path


def projecting_encoder(words: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=PROJECTION,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return CLIPTextModelWithProjection(config).eval()


def _unet(time_ids: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16 + _SECOND_WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=PROJECTION + time_ids * _TIME_WIDTH,
        norm_num_groups=4,
    ).eval()


@torch.no_grad()
def _make_lively(pipeline: StableDiffusionXLPipeline, time_ids: int) -> None:
    """Scale the weights so that texts, sizes and steps matter and pixels use their whole range."""
    unet = pipeline.unet
    unet.add_embedding.linear_2.weight *= 8
    latent = torch.randn(1, 4, SIZE // 2, SIZE // 2)
    made = unet(
        latent,
        500,
        encoder_hidden_states=torch.randn(1, MAX_TOKENS, 16 + _SECOND_WIDTH),
        added_cond_kwargs={
            "text_embeds": torch.randn(1, PROJECTION),
            "time_ids": torch.full((1, time_ids), float(SIZE)),
        },
        return_dict=False,
    )[0]
    unet.conv_out.weight /= made.std()
    decoded = pipeline.vae.decode(latent / 0.18215, return_dict=False)[0]
    pipeline.vae.decoder.conv_out.weight /= 2 * decoded.std()
