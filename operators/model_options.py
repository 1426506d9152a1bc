"""Options of diffusers that an engine's configuration gives to a loaded model.

Attention backends, channels last, VAE tiling and slicing, TF32. Each is diffusers' or
torch's own switch; what a model cannot do is refused in words.
"""

from __future__ import annotations

from typing import Any

import torch

from conf.errors import OptionRefused
from conf.schema import EngineConfig
from operators.attention_choice import SDPA
from operators.families.family import Family


def pipeline_of(family: Family) -> Any:
    """The diffusers pipeline that a family runs; every family keeps it as ``_pipeline``."""
    return family._pipeline  # type: ignore[attr-defined]


def denoiser_of(family: Family) -> Any:
    """The UNet or transformer of a family's pipeline."""
    return _denoiser(pipeline_of(family))


def _denoiser(pipeline: Any) -> Any:
    components = pipeline.components
    return components.get("unet") or components.get("transformer")


def apply_options(pipeline: Any, engine: EngineConfig) -> None:
    """Set what ``engine`` asks for, before weights are offloaded or code compiled.

    Raises:
        OptionRefused: the model or this machine cannot do it.
    """
    denoiser, vae = _denoiser(pipeline), pipeline.components.get("vae")
    set_tf32(engine.allow_tf32)
    if engine.attention != SDPA:
        _set_attention(denoiser, engine.attention)
    if engine.channels_last:
        for module in filter(None, (denoiser, vae)):
            module.to(memory_format=torch.channels_last)
    if engine.vae_tiling:
        _switch(vae, "enable_tiling", "vae_tiling")
    if engine.vae_slicing:
        _switch(vae, "enable_slicing", "vae_slicing")


def set_tf32(allowed: bool) -> None:
    """Whether products and convolutions of this process may round float32 to TF32 on GPUs.

    torch's own defaults allow it to convolutions, so that exactness must be asked for.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _set_attention(denoiser: Any, backend: str) -> None:
    """Diffusers itself passes silently over processors that know only torch's attention."""
    processors = getattr(denoiser, "attn_processors", {}).values()
    kinds = sorted({type(p).__name__ for p in processors if not hasattr(p, "_attention_backend")})
    if kinds or not processors:
        raise OptionRefused(
            f"engine.attention={backend}: the {type(denoiser).__name__} of this model takes no "
            f"attention backend (it attends with {', '.join(kinds) or 'layers of its own'}); give "
            f"engine.attention={SDPA}"
        )
    try:
        denoiser.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        raise OptionRefused(
            f"engine.attention={backend} cannot be used here: {error}. Install what it needs "
            f"wherever a worker runs, or give engine.attention={SDPA}"
        ) from error


def _switch(vae: Any, method: str, key: str) -> None:
    """Call a switch that diffusers defines for some VAEs only.

    Raises:
        OptionRefused: this one has no such thing.
    """
    try:
        getattr(vae, method)()
    except (AttributeError, NotImplementedError) as error:
        raise OptionRefused(
            f"engine.{key}=true: the {type(vae).__name__} of this model has no {method}; give "
            f"engine.{key}=false"
        ) from error
