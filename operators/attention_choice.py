"""Whether a model's denoiser takes ``engine.attention``, as far as files tell.

A worker finds out the rest: whether the backend's package is installed and fits its device.
"""

from __future__ import annotations

from conf.errors import OptionRefused
from operators.model_files import ModelFiles

SDPA = "sdpa"
"""``engine.attention`` that leaves the model as diffusers makes it: torch's own attention."""
TORCH_ATTENTION_ONLY = frozenset(
    {"UNet2DConditionModel", "PixArtTransformer2DModel", "SD3Transformer2DModel"}
)
"""Denoisers whose attention processors, as diffusers makes them, take no backend."""


def refuse_attention(backend: str, files: ModelFiles) -> None:
    """Refuse an attention backend that the model takes no notice of.

    Raises:
        OptionRefused: its denoiser is known to attend with torch alone.
    """
    for part in ("unet", "transformer"):
        kind = files.settings(part).get("_class_name") if part in files.components else None
        if backend != SDPA and kind in TORCH_ATTENTION_ONLY:
            raise OptionRefused(
                f"engine.attention={backend}: the {kind} of this model takes no attention backend; "
                f"give engine.attention={SDPA}"
            )
