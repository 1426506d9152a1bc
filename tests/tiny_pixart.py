"""A PixArt-Sigma pipeline of a few thousand random weights, for tests that run one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from tests.tiny_model import SIZE, vae

_WIDTH = 16


def build_tiny_pixart(path: Path, *, additional_conditions: bool = False) -> Path:
    """Write a complete model folder to ``path``, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = t5_tokenizer()
        pipeline = PixArtSigmaPipeline(
            tokenizer=words,
            text_encoder=t5_encoder(words, _WIDTH),
            vae=vae(),
            transformer=_transformer(additional_conditions),
            scheduler=DPMSolverMultistepScheduler(
                beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
            ),
        )
        if not additional_conditions:
            _make_lively(pipeline)
    pipeline.save_pretrained(path)
    return path


def t5_tokenizer() -> T5Tokenizer:
    """Letters are the words; everything else is unknown."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*vocab, *((letter, -3.0) for letter in letters)], extra_ids=0)


def t5_encoder(words: T5Tokenizer, width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(words),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config).eval()


def _transformer(additional_conditions: bool) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        sample_size=SIZE // 2,
        num_layers=2,
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        caption_channels=_WIDTH,
        attention_bias=True,
        use_additional_conditions=additional_conditions,
    ).eval()


@torch.no_grad()
def _make_lively(pipeline: PixArtSigmaPipeline) -> None:
    """Scale the weights so that prompts and steps matter and pixels use their whole range."""
    transformer = pipeline.transformer
    for block in transformer.transformer_blocks:
        block.attn2.to_out[0].weight *= 8
    latent = torch.randn(1, 4, SIZE // 2, SIZE // 2)
    made = transformer(
        latent,
        encoder_hidden_states=torch.randn(1, 5, _WIDTH),
        timestep=torch.tensor([500]),
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    transformer.proj_out.weight /= made.std()
    decoded = pipeline.vae.decode(latent / 0.18215, return_dict=False)[0]
    pipeline.vae.decoder.conv_out.weight /= 2 * decoded.std()
