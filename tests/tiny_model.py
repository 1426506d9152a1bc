"""A Stable Diffusion pipeline of a few thousand random weights, for tests that run one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MAX_TOKENS = 24
SIZE = 32
"""Pixels; the tiny VAE halves them once, so latents are 16 x 16."""


def build_tiny_stable_diffusion(path: Path, *, prediction_type: str = "epsilon") -> Path:
    """Write a complete model folder to ``path``, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=vae(),
            text_encoder=text_encoder(words),
            tokenizer=words,
            unet=_unet(),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=prediction_type,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        _make_lively(pipeline)
    pipeline.save_pretrained(path)
    return path


def tokenizer() -> CLIPTokenizer:
    """Bytes are the words: nothing is unknown, and prompts are soon too long."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [chr(256 + index) for index in range(256 - len(printable))]
    symbols = [*map(chr, printable), *hidden]
    names = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {name: index for index, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=MAX_TOKENS)


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    ).eval()


@torch.no_grad()
def _make_lively(pipeline: StableDiffusionPipeline) -> None:
    """Scale the outputs so that prompts and steps matter and pixels use their whole range."""
    text = torch.randn(1, MAX_TOKENS, 16)
    latent = torch.randn(1, 4, SIZE // 2, SIZE // 2)
    made = pipeline.unet(latent, 500, encoder_hidden_states=text, return_dict=False)[0]
    pipeline.unet.conv_out.weight /= made.std()
    decoded = pipeline.vae.decode(latent / 0.18215, return_dict=False)[0]
    pipeline.vae.decoder.conv_out.weight /= 2 * decoded.std()
