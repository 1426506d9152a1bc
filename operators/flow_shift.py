"""How flow models space noise levels by the image's size, as the pipelines of SD3 and Flux do.

Its answers are arguments of ``compile_sampler``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseLevels:
    """What a pipeline tells its scheduler about the noise levels of one image.

    ``mu`` shifts them; ``sigmas`` are the levels before the shift. None: nothing is told.
    """

    mu: float | None = None
    sigmas: tuple[float, ...] | None = None


def dynamic_mu(
    scheduler_config: Mapping[str, Any], image_tokens: int, *, max_shift: float = 1.15
) -> float | None:
    """``mu`` for an image that the transformer sees as so many tokens (text not counted).

    ``calculate_shift`` of diffusers' Flux and SD3 pipelines. None where the model does not shift
    dynamically. ``max_shift`` is the pipeline's own default (Flux 1.15, SD3 1.16), for a
    configuration without that option.
    """
    if not scheduler_config.get("use_dynamic_shifting"):
        return None
    low = scheduler_config.get("base_image_seq_len", 256)
    high = scheduler_config.get("max_image_seq_len", 4096)
    base = scheduler_config.get("base_shift", 0.5)
    slope = (scheduler_config.get("max_shift", max_shift) - base) / (high - low)
    return float(image_tokens * slope + (base - slope * low))


def even_sigmas(steps: int) -> tuple[float, ...]:
    """Noise levels 1, ..., 1/steps in even distances: Flux pipelines pass them, SD3's none."""
    return tuple(np.linspace(1.0, 1 / steps, steps).tolist())
