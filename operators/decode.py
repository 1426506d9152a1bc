"""Finished latents become pixels, and pixels are checked, all on the device.

Post-processing is that of diffusers' VaeImageProcessor. Knows nothing of slots or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from operators.families.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An image on the device: ``pixels`` uint8 [H, W, 3], ``finite`` a scalar that is true unless
    its latent or the decoded values hold something that is no number."""

    pixels: torch.Tensor
    finite: torch.Tensor


def decode_latents(family: Family, latents: Sequence[torch.Tensor]) -> list[Decoded]:
    """The image of each latent [c, h, w].

    Only values that are no numbers are refused: an all-black picture is a picture.
    """
    given = torch.stack(list(latents))
    decoded = family.decode(given)
    is_finite = finite(given) & finite(decoded)
    zero_to_one = (decoded * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
    pixels = (zero_to_one * 255).round().to(torch.uint8).contiguous()
    return [
        Decoded(pixels=image, finite=passed)
        for image, passed in zip(pixels, is_finite, strict=True)
    ]


def finite(values: torch.Tensor) -> torch.Tensor:
    """Of each item [b, ...] whether all its values are numbers, [b]."""
    return torch.isfinite(values).flatten(1).all(dim=1)
