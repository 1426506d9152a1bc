"""A tiny model of every family that the stepwise engine runs, and two samplers that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.tiny_flux import build_tiny_flux
from tests.tiny_model import build_tiny_stable_diffusion
from tests.tiny_pixart import build_tiny_pixart
from tests.tiny_sd3 import build_tiny_sd3
from tests.tiny_sdxl import build_tiny_sdxl

_NOISE = ("euler", "euler_ancestral")
_FLOW = ("flow_match_euler", "dpmpp_2m_sde")
TINY_FAMILIES: dict[str, tuple[Callable[[Path], Path], tuple[str, str]]] = {
    "stable_diffusion": (build_tiny_stable_diffusion, _NOISE),
    "sdxl": (build_tiny_sdxl, _NOISE),
    "pixart_sigma": (build_tiny_pixart, _NOISE),
    "sd3": (build_tiny_sd3, _FLOW),
    "flux": (build_tiny_flux, _FLOW),
}
"""By the name of the family's module."""
