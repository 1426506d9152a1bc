"""The names of all samplers: which diffusers scheduler each means, with which options.

Names are stable: a name, once here, always means the same computation. Plain data without torch,
so that a driver can check names and count model calls; ``samplers`` makes the schedulers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

ModelKind = Literal["noise", "flow", "edm", "own"]
"""How a model was trained: on a schedule of betas (Stable Diffusion 1, 2 and XL), on straight flows
(SD3, Flux), on EDM's preconditioned noise, or in a way that only its own scheduler knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """What one name means.

    ``options`` hold whatever the model's configuration says. ``models`` are the kinds of model that
    the sampler can follow; ``own`` means models that were saved with this scheduler, and no other.
    ``spacing`` is the suffix of the name that says how noise levels are spaced, or empty.
    """

    scheduler: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[ModelKind, ...] = ("noise",)
    calls_per_step: int = 1
    extra_calls: int = 0
    spacing: str = ""

    def model_calls(self, steps: int) -> int:
        """Denoiser calls of one image; the last step of a two-call sampler is a plain one."""
        extra = self.extra_calls if steps > 1 else 0
        return self.calls_per_step * (steps - 1) + 1 + extra


_BOTH: tuple[ModelKind, ...] = ("noise", "flow")
_SDE = "{}, with fresh noise in each step"


def _multistep(order: int, *, sde: bool = False) -> SamplerSpec:
    about = f"DPM-Solver++, multistep, order {order}"
    algorithm = "sde-dpmsolver++" if sde else "dpmsolver++"
    return SamplerSpec(
        scheduler="DPMSolverMultistepScheduler",
        about=_SDE.format(about) if sde else about,
        options={"algorithm_type": algorithm, "solver_order": order},
        models=_BOTH,
    )


def _singlestep(order: int, *, sde: bool = False) -> SamplerSpec:
    about = f"DPM-Solver++, singlestep, order {order}"
    algorithm = "sde-dpmsolver++" if sde else "dpmsolver++"
    return SamplerSpec(
        scheduler="DPMSolverSinglestepScheduler",
        about=_SDE.format(about) if sde else about,
        # without lower_order_final it can't end at zero noise: diffusers warns and switches it on
        options={"algorithm_type": algorithm, "solver_order": order, "lower_order_final": True},
        models=_BOTH,
    )


def _deis(order: int) -> SamplerSpec:
    return SamplerSpec(
        scheduler="DEISMultistepScheduler",
        about=f"DEIS, order {order}",
        options={"algorithm_type": "deis", "solver_type": "logrho", "solver_order": order},
        models=_BOTH,
    )


def _unipc(order: int) -> SamplerSpec:
    return SamplerSpec(
        scheduler="UniPCMultistepScheduler",
        about=f"UniPC, predictor and corrector, order {order}",
        options={"solver_order": order, "solver_type": "bh2"},
        models=_BOTH,
    )


def _edm_multistep(order: int, *, sde: bool = False) -> SamplerSpec:
    spec = _multistep(order, sde=sde)
    return replace(
        spec,
        scheduler="EDMDPMSolverMultistepScheduler",
        about=f"{spec.about}, for EDM",
        models=("edm",),
    )


_BASE: Mapping[str, SamplerSpec] = {
    "cogvideox_ddim": SamplerSpec(
        scheduler="CogVideoXDDIMScheduler", about="DDIM of CogVideoX", models=("own",)
    ),
    "consistency": SamplerSpec(
        scheduler="CMStochasticIterativeScheduler", about="consistency models", models=("own",)
    ),
    "ddim": SamplerSpec(scheduler="DDIMScheduler", about="DDIM without noise (eta = 0)"),
    "ddpm": SamplerSpec(scheduler="DDPMScheduler", about=_SDE.format("DDPM")),
    "deis": _deis(2),
    "deis_order3": _deis(3),
    "dpm2": SamplerSpec(
        scheduler="KDPM2DiscreteScheduler", about="k-diffusion's DPM-Solver-2", calls_per_step=2
    ),
    "dpm2_ancestral": SamplerSpec(
        scheduler="KDPM2AncestralDiscreteScheduler",
        about=_SDE.format("k-diffusion's DPM-Solver-2"),
        calls_per_step=2,
    ),
    "dpmpp_2m": _multistep(2),
    "dpmpp_2m_sde": _multistep(2, sde=True),
    "dpmpp_2s": _singlestep(2),
    "dpmpp_2s_sde": _singlestep(2, sde=True),
    "dpmpp_3m": _multistep(3),
    "dpmpp_3m_sde": _multistep(3, sde=True),
    "dpmpp_3s": _singlestep(3),
    "dpmpp_3s_sde": _singlestep(3, sde=True),
    "edm_dpmpp_2m": _edm_multistep(2),
    "edm_dpmpp_2m_sde": _edm_multistep(2, sde=True),
    "edm_dpmpp_3m": _edm_multistep(3),
    "edm_euler": SamplerSpec(
        scheduler="EDMEulerScheduler", about="Euler, for EDM", models=("edm",)
    ),
    "euler": SamplerSpec(scheduler="EulerDiscreteScheduler", about="Euler"),
    "euler_ancestral": SamplerSpec(
        scheduler="EulerAncestralDiscreteScheduler", about=_SDE.format("Euler")
    ),
    "flow_match_euler": SamplerSpec(
        scheduler="FlowMatchEulerDiscreteScheduler",
        about="Euler along the flow; the usual sampler of SD3 and Flux",
        options={"stochastic_sampling": False},
        models=("flow",),
    ),
    "flow_match_euler_stochastic": SamplerSpec(
        scheduler="FlowMatchEulerDiscreteScheduler",
        about=_SDE.format("Euler along the flow"),
        options={"stochastic_sampling": True},
        models=("flow",),
    ),
    "flow_match_heun": SamplerSpec(
        scheduler="FlowMatchHeunDiscreteScheduler",
        about="Heun along the flow",
        models=("flow",),
        calls_per_step=2,
    ),
    "flow_match_lcm": SamplerSpec(
        scheduler="FlowMatchLCMScheduler",
        about="latent consistency along the flow, for models distilled for it",
        models=("flow",),
    ),
    "heun": SamplerSpec(scheduler="HeunDiscreteScheduler", about="Heun", calls_per_step=2),
    "ipndm": SamplerSpec(
        scheduler="IPNDMScheduler", about="improved PNDM, order 4", models=("own",)
    ),
    "lcm": SamplerSpec(
        scheduler="LCMScheduler", about="latent consistency, for models distilled for it"
    ),
    "pndm": SamplerSpec(
        scheduler="PNDMScheduler",
        about="PNDM without Runge-Kutta warm-up, also called PLMS",
        options={"skip_prk_steps": True},
        extra_calls=1,
    ),
    "sa_solver": SamplerSpec(
        scheduler="SASolverScheduler",
        about="stochastic Adams, predictor and corrector, order 2",
        options={"predictor_order": 2, "corrector_order": 2, "algorithm_type": "data_prediction"},
        models=_BOTH,
    ),
    "tcd": SamplerSpec(
        scheduler="TCDScheduler", about="trajectory consistency, for models distilled for it"
    ),
    "unipc": _unipc(2),
    "unipc_order1": _unipc(1),
    "unipc_order3": _unipc(3),
}

_SIGMAS: Mapping[str, Mapping[str, Any]] = {
    "": {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False},
    "karras": {
        "use_karras_sigmas": True,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
    },
    "exponential": {
        "use_karras_sigmas": False,
        "use_exponential_sigmas": True,
        "use_beta_sigmas": False,
    },
}
_LU_SIGMAS: Mapping[str, Mapping[str, Any]] = {
    **{name: {**options, "use_lu_lambdas": False} for name, options in _SIGMAS.items()},
    "lu": {**_SIGMAS[""], "use_lu_lambdas": True},
}
_EDM_SIGMAS: Mapping[str, Mapping[str, Any]] = {
    "": {"sigma_schedule": "karras"},
    "exponential": {"sigma_schedule": "exponential"},
}
_SPACINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "DEISMultistepScheduler": _SIGMAS,
    "DPMSolverMultistepScheduler": _LU_SIGMAS,
    "DPMSolverSinglestepScheduler": _SIGMAS,
    "EDMDPMSolverMultistepScheduler": _EDM_SIGMAS,
    "EDMEulerScheduler": _EDM_SIGMAS,
    "EulerDiscreteScheduler": _SIGMAS,
    "FlowMatchEulerDiscreteScheduler": _SIGMAS,
    "FlowMatchLCMScheduler": _SIGMAS,
    "HeunDiscreteScheduler": _SIGMAS,
    "KDPM2AncestralDiscreteScheduler": _SIGMAS,
    "KDPM2DiscreteScheduler": _SIGMAS,
    "SASolverScheduler": _SIGMAS,
    "UniPCMultistepScheduler": _SIGMAS,
}
"""The spacings of noise levels that each class offers, and the options that mean them."""


def _spaced(name: str, spec: SamplerSpec) -> Iterator[tuple[str, SamplerSpec]]:
    for spacing, options in _SPACINGS.get(spec.scheduler, {"": {}}).items():
        # a class for both kinds of model spaces the levels of the betas, not those of a flow
        models: tuple[ModelKind, ...] = (
            ("noise",) if spacing and spec.models == _BOTH else spec.models
        )
        yield (
            f"{name}_{spacing}" if spacing else name,
            replace(spec, options={**spec.options, **options}, models=models, spacing=spacing),
        )


SPECS: Mapping[str, SamplerSpec] = dict(
    sorted(pair for name, spec in _BASE.items() for pair in _spaced(name, spec))
)
"""All samplers by name."""
SAMPLERS = tuple(SPECS)
OWN_SAMPLER = "default"
"""What a row asks for to get the model's own scheduler, exactly as the model was saved with it."""


def model_calls(sampler: str, steps: int) -> int:
    """Denoiser calls of one image; the model's own scheduler, unknown here, counts one a step."""
    return steps if sampler == OWN_SAMPLER else SPECS[sampler].model_calls(steps)


def is_sampler(value: object) -> bool:
    """Whether a row may ask for this sampler."""
    return value == OWN_SAMPLER or value in SAMPLERS


def samplers_for(kind: ModelKind) -> tuple[str, ...]:
    """The names that models of this kind can be asked for."""
    return tuple(name for name, spec in SPECS.items() if kind in spec.models)
