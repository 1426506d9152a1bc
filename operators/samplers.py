"""Which diffusers scheduler each sampler's name means, and with which options.

Knows names and options only; what the schedulers compute is read in ``sampler_table``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis", "solver_type": "logrho"}),
    "dpmpp_2m": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False},
    ),
    "dpmpp_2m_karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    "dpmpp_2m_sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "use_karras_sigmas": False},
    ),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
_UNLESS_ASKED: dict[str, Any] = {
    # Latents are not pixels: DDIM's and DDPM's default of clipping is meant for pixel models.
    "clip_sample": False,
    # Stable Diffusion's own choice; the Runge-Kutta warm-up would cost 8 more model calls.
    "skip_prk_steps": True,
}
_NONLINEAR = ("clip_sample", "thresholding", "dynamic_thresholding")


def make_scheduler(scheduler_config: Mapping[str, Any], sampler: str) -> Any:
    """A fresh diffusers scheduler with the model's noise schedule and prediction type.

    Raises:
        KeyError: the sampler has no scheduler.
    """
    class_name, options = _CLASSES[sampler]
    cls = getattr(diffusers, class_name)
    return cls.from_config(_options(cls, scheduler_config) | options)


def nonlinear_option(scheduler_config: Mapping[str, Any], sampler: str) -> str | None:
    """The option of the model's configuration that forbids a table for this sampler, as k=v."""
    cls = getattr(diffusers, _CLASSES[sampler][0])
    options = _options(cls, scheduler_config)
    for name in _NONLINEAR:
        if options.get(name):
            return f"{name}={options[name]}"
    variance_type = str(options.get("variance_type", ""))
    return f"variance_type={variance_type}" if "learned" in variance_type else None


def step_arguments(scheduler: Any) -> dict[str, Any]:
    """Extra arguments of ``step`` as StableDiffusionPipeline passes them by default."""
    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    return {"eta": 0.0} if takes_eta else {}


def _options(cls: Any, scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's configuration really sets, as far as ``cls`` knows the option.

    diffusers lists in ``_use_default_values`` the options that a class filled in by itself.
    """
    known = set(inspect.signature(cls.__init__).parameters) - {"self"}
    filled_in = set(scheduler_config.get("_use_default_values") or ())
    asked = {
        name: value
        for name, value in scheduler_config.items()
        if name in known and name not in filled_in
    }
    return {name: value for name, value in _UNLESS_ASKED.items() if name in known} | asked
