"""Tiny pipelines that no family has an adapter for, for tests that run one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LDMTextToImagePipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny_model import SIZE, tokenizer
from tests.tiny_pixart import build_tiny_pixart

_TOKENS = 77


def build_tiny_pixart_alpha(path: Path) -> Path:
    """A PixArt-Alpha with the weights of the tiny PixArt-Sigma."""
    sigma = PixArtSigmaPipeline.from_pretrained(build_tiny_pixart(path / "sigma"))
    PixArtAlphaPipeline(**sigma.components).save_pretrained(path / "alpha")
    return path / "alpha"


def build_tiny_latent_diffusion(path: Path) -> Path:
    """A pipeline that takes no negative prompt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = tokenizer()
        words.model_max_length = _TOKENS
        pipeline = LDMTextToImagePipeline(
            vqvae=_vae(),
            bert=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(words),
                    hidden_size=16,
                    intermediate_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    max_position_embeddings=_TOKENS,
                    bos_token_id=words.bos_token_id,
                    eos_token_id=words.eos_token_id,
                    pad_token_id=words.pad_token_id,
                )
            ).eval(),
            tokenizer=words,
            unet=UNet2DConditionModel(
                sample_size=SIZE // 8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=4,
                norm_num_groups=4,
            ).eval(),
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
        )
        _make_lively(pipeline)
    pipeline.save_pretrained(path)
    return path


def _vae() -> AutoencoderKL:
    """The pipeline takes it for granted that a latent's pixel is 8 x 8 pixels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    ).eval()


@torch.no_grad()
def _make_lively(pipeline: LDMTextToImagePipeline) -> None:
    """Scale the outputs so that prompts and steps matter and pixels use their whole range."""
    latent = torch.randn(1, 4, SIZE // 8, SIZE // 8)
    text = torch.randn(1, _TOKENS, 16)
    made = pipeline.unet(latent, 500, encoder_hidden_states=text, return_dict=False)[0]
    pipeline.unet.conv_out.weight /= made.std()
    decoded = pipeline.vqvae.decode(latent / 0.18215, return_dict=False)[0]
    pipeline.vqvae.decoder.conv_out.weight /= 2 * decoded.std()
