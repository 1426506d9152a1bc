"""Options of schedulers that forbid a table, told from a model's configuration alone.

Plain data without torch, so that a driver can choose an engine before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.sampler_names import OWN_SAMPLER, SPECS

CLIPPING: Mapping[str, Mapping[str, bool]] = {
    "CMStochasticIterativeScheduler": {"clip_denoised": True},
    "CogVideoXDDIMScheduler": {"clip_sample": True},
    "DDIMParallelScheduler": {"clip_sample": True, "thresholding": False},
    "DDIMScheduler": {"clip_sample": True, "thresholding": False},
    "DDPMParallelScheduler": {"clip_sample": True, "thresholding": False},
    "DDPMScheduler": {"clip_sample": True, "thresholding": False},
    "DEISMultistepScheduler": {"thresholding": False},
    "DPMSolverMultistepScheduler": {"thresholding": False},
    "DPMSolverSinglestepScheduler": {"thresholding": False},
    "EDMDPMSolverMultistepScheduler": {"thresholding": False},
    "HeunDiscreteScheduler": {"clip_sample": False},
    "LCMScheduler": {"clip_sample": False, "thresholding": False},
    "SASolverScheduler": {"thresholding": False},
    "TCDScheduler": {"clip_sample": False, "thresholding": False},
    "UniPCMultistepScheduler": {"thresholding": False},
}
"""The clipping options that each class knows, and what it does where nothing sets them."""
LEARNING = (
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "SASolverScheduler",
)
"""The classes that may take a variance from the model's output."""


def nonlinear_option(scheduler_config: Mapping[str, Any], sampler: str) -> str | None:
    """The option of the model's configuration that forbids a table for this sampler, as k=v.

    A named sampler clips only where the model's configuration says so; the model's own scheduler
    also does what its class does by default.
    """
    own = sampler == OWN_SAMPLER
    scheduler = str(scheduler_config.get("_class_name")) if own else SPECS[sampler].scheduler
    filled_in = () if own else scheduler_config.get("_use_default_values") or ()
    asked = {name: value for name, value in scheduler_config.items() if name not in filled_in}
    for name, default in CLIPPING.get(scheduler, {}).items():
        if asked.get(name, own and default):
            return f"{name}={asked.get(name, default)}"
    variance_type = str(asked.get("variance_type", ""))
    learned = scheduler in LEARNING and "learned" in variance_type
    return f"variance_type={variance_type}" if learned else None
