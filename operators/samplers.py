"""Makes the diffusers scheduler that a sampler's name means, fit to a model.

Knows names, options and kinds of model only; what the schedulers compute is read in
``sampler_table``.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers

from operators.sampler_names import OWN_SAMPLER, SPECS, ModelKind
from operators.samplers_left_out import LEFT_OUT

_UNLESS_ASKED: dict[str, Any] = {
    # Latents are not pixels: clipping, the default of DDIM and others, is meant for pixel models.
    "clip_sample": False,
    "clip_denoised": False,
}

_MADE_KEPT = 64
_made: OrderedDict[tuple[str, str], Any] = OrderedDict()
_lock = threading.Lock()


def config_digest(scheduler_config: Mapping[str, Any]) -> str:
    """A key for a scheduler's configuration."""
    plain = json.dumps(dict(scheduler_config), sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()


def make_scheduler(scheduler_config: Mapping[str, Any], sampler: str) -> Any:
    """A fresh diffusers scheduler with the model's noise schedule and prediction type.

    Some take a third of a second to make, so unused ones are kept and copied.

    Raises:
        KeyError: the sampler has no scheduler.
    """
    key = (config_digest(scheduler_config), sampler)
    with _lock:
        if key not in _made:
            _made[key] = _construct(scheduler_config, sampler)
            if len(_made) > _MADE_KEPT:
                _made.popitem(last=False)
        _made.move_to_end(key)
        return copy.deepcopy(_made[key])


def scheduler_name(scheduler_config: Mapping[str, Any], sampler: str) -> str:
    """The diffusers class that a sampler means for this model."""
    own = sampler == OWN_SAMPLER
    return str(scheduler_config.get("_class_name")) if own else SPECS[sampler].scheduler


def _construct(scheduler_config: Mapping[str, Any], sampler: str) -> Any:
    if sampler == OWN_SAMPLER:
        own = getattr(diffusers, scheduler_name(scheduler_config, sampler))
        return own.from_config(dict(scheduler_config))
    spec = SPECS[sampler]
    cls = getattr(diffusers, spec.scheduler)
    options = {**_asked_options(cls, scheduler_config), **spec.options}
    if model_kind(scheduler_config) == "flow":
        options |= _flow_options(cls, scheduler_config)
    return cls.from_config(options)


def set_timesteps(
    scheduler: Any, steps: int, *, mu: float | None, sigmas: Sequence[float] | None
) -> None:
    """Call ``set_timesteps`` as the pipelines of SD3 and Flux do.

    ``mu`` goes to schedulers that shift dynamically; ``sigmas`` to those of the FlowMatch classes
    that take them, the others space noise levels themselves.
    """
    options: dict[str, Any] = {}
    if scheduler.config.get("use_dynamic_shifting"):
        options["mu"] = mu
    flow_match = type(scheduler).__name__.startswith("FlowMatch")
    if flow_match and "sigmas" in inspect.signature(scheduler.set_timesteps).parameters:
        options["sigmas"] = None if sigmas is None else list(sigmas)
    scheduler.set_timesteps(steps, **options)


def model_kind(scheduler_config: Mapping[str, Any]) -> ModelKind:
    """How the model was trained: its own scheduler tells, or options where that fits several."""
    saved_with = scheduler_config.get("_class_name")
    kinds = {
        kind for spec in SPECS.values() if spec.scheduler == saved_with for kind in spec.models
    }
    kinds |= {one.models for one in LEFT_OUT.values() if one.scheduler == saved_with}
    if len(kinds) == 1:
        return kinds.pop()
    if "sigma_data" in scheduler_config:
        return "edm"
    flow = scheduler_config.get("use_flow_sigmas") or (
        scheduler_config.get("prediction_type") == "flow_prediction"
        or ("shift" in scheduler_config and "beta_schedule" not in scheduler_config)
    )
    return "flow" if flow else "noise"


def misfit(scheduler_config: Mapping[str, Any], sampler: str) -> str | None:
    """Why the sampler cannot follow this model, or None where it can."""
    if sampler == OWN_SAMPLER:
        return _why_no_table(scheduler_name(scheduler_config, sampler))
    spec, kind = SPECS[sampler], model_kind(scheduler_config)
    saved_with = scheduler_config.get("_class_name")
    if kind not in spec.models or (kind == "own" and saved_with != spec.scheduler):
        fits = _models(spec.models, spec.scheduler)
        return f"it is for {fits}, this is one of the {_models((kind,), saved_with)}"
    if kind != "flow" or not scheduler_config.get("use_dynamic_shifting"):
        return None
    known = _parameters(getattr(diffusers, spec.scheduler))
    shift_type = scheduler_config.get("time_shift_type", "exponential")
    # these turn mu into flow_shift, which diffusers does for one type of shift only
    turns = "flow_shift" in known and "shift_terminal" not in known
    if "use_dynamic_shifting" not in known:
        return "it has no option use_dynamic_shifting, which this model sets"
    if turns and shift_type != "exponential":
        return f"it does not know time_shift_type={shift_type}, which this model sets"
    return None


def step_arguments(scheduler: Any) -> dict[str, Any]:
    """Extra arguments of ``step`` as StableDiffusionPipeline passes them by default."""
    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    return {"eta": 0.0} if takes_eta else {}


def _why_no_table(scheduler: str) -> str | None:
    """Why a model's own scheduler is none of ours, or None where a table may be tried."""
    if any(spec.scheduler == scheduler for spec in SPECS.values()):
        return None
    left_out = {one.scheduler: one.why for one in LEFT_OUT.values()}
    return left_out.get(scheduler, "diffusers has no such scheduler")


def _models(kinds: Sequence[ModelKind], scheduler: object) -> str:
    texts = {
        "noise": "models trained on a noise schedule",
        "flow": "flow models",
        "edm": "EDM models",
        "own": f"models of {scheduler}",
    }
    return " or ".join(texts[kind] for kind in kinds)


def _flow_options(cls: Any, scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """What FlowMatch classes call ``shift`` and always do, the others do as an option."""
    flow_match = "shift" in _parameters(cls)
    names = ("shift", "flow_shift") if flow_match else ("flow_shift", "shift")
    shift = next((scheduler_config[n] for n in names if scheduler_config.get(n) is not None), 1.0)
    if flow_match:
        return {"shift": shift}
    return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}


def _parameters(cls: Any) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - {"self"}


def _asked_options(cls: Any, scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's configuration really sets, as far as ``cls`` knows the option.

    diffusers lists in ``_use_default_values`` the options that a class filled in by itself.
    """
    known = _parameters(cls)
    filled_in = set(scheduler_config.get("_use_default_values") or ())
    asked = {
        name: value
        for name, value in scheduler_config.items()
        if name in known and name not in filled_in
    }
    return {name: value for name, value in _UNLESS_ASKED.items() if name in known} | asked
