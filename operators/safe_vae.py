"""Decoding with float16 VAEs that nobody need fear.

Some compute values that float16 cannot hold: the image is not finite, or black. What a family so
decodes is decoded again in float32; whole pipelines decode in float32 at once. bfloat16 holds
whatever float32 does. Knows nothing of slots or requests.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import torch

from operators.families.family import Family
from operators.families.loading import silent_diffusers

_log = logging.getLogger(__name__)


class SafeVae:
    """A family whose ``decode`` repeats a batch in float32 when an image of it is black or not
    finite. A picture that is black in float32 too is a picture.

    ``redecoded`` counts the images of the batches that were decoded again.
    """

    def __init__(self, family: Family, vae: Any) -> None:
        self._family = family
        self._vae = vae
        self.redecoded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See ``operators.families.family.Family``."""
        decoded = self._family.decode(latents)
        if not bool(_overflowed(decoded).any()):
            return decoded
        self.redecoded += len(latents)
        _log.warning(
            "images overflowed in the VAE's float16: their batch is decoded again in float32 "
            "(%d images so far)",
            self.redecoded,
            extra={"event": "vae_overflow", "images": len(latents)},
        )
        return self._decode_exactly(latents)

    def _decode_exactly(self, latents: torch.Tensor) -> torch.Tensor:
        """float16 weights are float32 ones exactly, and come back unchanged."""
        dtype = self._vae.dtype
        to_float32(self._vae)
        try:
            return self._family.decode(latents)
        finally:
            with silent_diffusers():
                self._vae.to(dtype=dtype)


def to_float32(vae: Any) -> None:
    """Make a float16 VAE float32, without diffusers' advice to load it so: it holds what it did."""
    with silent_diffusers():
        vae.to(dtype=torch.float32)


def guard_vae(family: Family, vae: Any) -> Family:
    """The family, its VAE guarded if it computes in float16.

    The guard waits for the device at every decoding, which the others need not.
    """
    return cast(Family, SafeVae(family, vae)) if vae.dtype == torch.float16 else family


def decode_exactly(pipeline: Any) -> None:
    """Let a whole pipeline decode in float32 if its VAE is float16, whatever its latents are in.

    Some pipelines never compare the two. Before the weights are offloaded.
    """
    vae = pipeline.components.get("vae")
    if vae is None or vae.dtype != torch.float16:
        return
    to_float32(vae)
    decode = vae.decode

    def decode_float32(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        return decode(latents.float(), *args, **options)

    vae.decode = decode_float32


def _overflowed(decoded: torch.Tensor) -> torch.Tensor:
    """Which of the images [b, 3, H, W] are not finite, or black in every pixel: [b]."""
    flat = decoded.flatten(1)
    return ~torch.isfinite(flat).all(dim=1) | (flat <= -1).all(dim=1)
