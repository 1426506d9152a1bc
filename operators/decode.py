"""Finished latents become pixels, and pixels are checked.

Post-processing is that of diffusers' VaeImageProcessor. Knows nothing of slots or requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from operators.engine import Pixels
from operators.families.family import Family


def decode_latents(family: Family, latents: Sequence[torch.Tensor]) -> list[Pixels | None]:
    """Pixels of each latent [c, h, w]; None where the decoded image is not finite.

    Only values that are no numbers are refused: an all-black picture is a picture.
    """
    decoded = family.decode(torch.stack(list(latents)))
    finite = torch.isfinite(decoded).flatten(1).all(dim=1).tolist()
    return [
        _to_pixels(image) if is_finite else None
        for image, is_finite in zip(decoded, finite, strict=True)
    ]


def _to_pixels(decoded: torch.Tensor) -> Pixels:
    """uint8 H x W x 3 from a decoded image [3, H, W] in -1 to 1."""
    zero_to_one = (decoded * 0.5 + 0.5).clamp(0, 1).cpu().permute(1, 2, 0).float().numpy()
    return np.ascontiguousarray((zero_to_one * 255).round().astype(np.uint8))
