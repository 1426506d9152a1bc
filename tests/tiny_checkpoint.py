"""The tiny Stable Diffusion as one file in the layout of the original code.

Names are those of CompVis' checkpoints: what diffusers' ``from_single_file`` reads.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

_UNET = (
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^down_blocks\.0\.resnets\.0", "input_blocks.1.0"),
    (r"^down_blocks\.0\.downsamplers\.0\.conv", "input_blocks.2.0.op"),
    (r"^down_blocks\.1\.resnets\.0", "input_blocks.3.0"),
    (r"^down_blocks\.1\.attentions\.0", "input_blocks.3.1"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
    (r"^up_blocks\.0\.resnets\.(\d)", r"output_blocks.\1.0"),
    (r"^up_blocks\.0\.attentions\.(\d)", r"output_blocks.\1.1"),
    (r"^up_blocks\.0\.upsamplers\.0", "output_blocks.1.2"),
    (r"^up_blocks\.1\.resnets\.0", "output_blocks.2.0"),
    (r"^up_blocks\.1\.resnets\.1", "output_blocks.3.0"),
    (r"\.norm1(?=\.[a-z]+$)(?<!transformer_blocks\.0\.norm1)", ".in_layers.0"),
    (r"\.conv1", ".in_layers.2"),
    (r"\.norm2(?=\.[a-z]+$)(?<!transformer_blocks\.0\.norm2)", ".out_layers.0"),
    (r"\.conv2", ".out_layers.3"),
    (r"\.time_emb_proj", ".emb_layers.1"),
    (r"\.conv_shortcut", ".skip_connection"),
)
_VAE = (
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.0\.resnets\.(\d)", r"up.1.block.\1"),
    (r"up_blocks\.1\.resnets\.(\d)", r"up.0.block.\1"),
    (r"up_blocks\.0\.upsamplers\.0", "up.1.upsample"),
    (r"group_norm", "norm"),
    (r"to_q", "q"),
    (r"to_k", "k"),
    (r"to_v", "v"),
    (r"to_out\.0", "proj_out"),
)


def write_checkpoint(folder: Path, file: Path) -> Path:
    """Write the weights of the tiny model in ``folder`` to ``file`` (.safetensors or .ckpt)."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    text = pipeline.text_encoder.state_dict()
    parts = {
        **{f"model.diffusion_model.{_named(k, _UNET)}": v for k, v in _state(pipeline.unet)},
        **{f"first_stage_model.{_named(k, _VAE)}": _square(k, v) for k, v in _state(pipeline.vae)},
        **{f"cond_stage_model.transformer.{_text(name)}": value for name, value in text.items()},
    }
    whole = {name: value.contiguous().clone() for name, value in parts.items()}
    if file.suffix == ".ckpt":
        torch.save({"state_dict": whole}, file)
    else:
        save_file(whole, file)
    return file


def _state(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.state_dict().items())


def _named(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, there in rules:
        name = re.sub(pattern, there, name)
    return name


def _text(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _square(name: str, value: torch.Tensor) -> torch.Tensor:
    """The VAE's attention was a convolution of one pixel."""
    is_matrix = "attentions" in name and "group_norm" not in name and name.endswith("weight")
    return value[:, :, None, None] if is_matrix else value
