"""Schedulers of diffusers that no sampler's name means, each with the reason, and how to say so."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from operators.sampler_names import SAMPLERS, ModelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """``models`` is the kind of a model that was saved with this scheduler."""

    scheduler: str
    why: str
    models: ModelKind = "own"


_SCIPY = "it needs SciPy, which ImageMill does not install"
_TREE = "it draws its noise from torchsde's Brownian tree, not one independent draw in each call"
_TOKENS = "it is not linear: it chooses discrete tokens"

LEFT_OUT: Mapping[str, LeftOut] = {
    "amused": LeftOut(scheduler="AmusedScheduler", why=_TOKENS),
    "block_refinement": LeftOut(scheduler="BlockRefinementScheduler", why=_TOKENS),
    "cogvideox_dpm": LeftOut(
        scheduler="CogVideoXDPMScheduler",
        why="its step wants the last step's estimate from the caller",
    ),
    "consistency_decoder": LeftOut(
        scheduler="ConsistencyDecoderScheduler",
        why="it is part of a decoder, not a sampler of latents",
    ),
    "cosine_dpmpp_2m": LeftOut(scheduler="CosineDPMSolverMultistepScheduler", why=_TREE),
    "ddim_inverse": LeftOut(
        scheduler="DDIMInverseScheduler", why="it runs from an image to noise", models="noise"
    ),
    "ddim_parallel": LeftOut(
        scheduler="DDIMParallelScheduler", why="it computes what ddim computes", models="noise"
    ),
    "ddpm_parallel": LeftOut(
        scheduler="DDPMParallelScheduler", why="it computes what ddpm computes", models="noise"
    ),
    "ddpm_wuerstchen": LeftOut(
        scheduler="DDPMWuerstchenScheduler", why="its step wants a timestep for each image"
    ),
    "discrete_ddim": LeftOut(scheduler="DiscreteDDIMScheduler", why=_TOKENS),
    "dpm_sde": LeftOut(scheduler="DPMSolverSDEScheduler", why=_TREE, models="noise"),
    "dpmpp_2m_inverse": LeftOut(
        scheduler="DPMSolverMultistepInverseScheduler",
        why="it runs from an image to noise",
        models="noise",
    ),
    "entropy_bound": LeftOut(scheduler="EntropyBoundScheduler", why=_TOKENS),
    "flow_map_euler": LeftOut(
        scheduler="FlowMapEulerDiscreteScheduler",
        why="its models want the next timestep as well",
    ),
    "helios": LeftOut(
        scheduler="HeliosScheduler", why="it changes the latent's size between stages"
    ),
    "helios_dmd": LeftOut(
        scheduler="HeliosDMDScheduler", why="it changes the latent's size between stages"
    ),
    "karras_ve": LeftOut(
        scheduler="KarrasVeScheduler", why="it wants two model calls and a noised latent in a step"
    ),
    "lms": LeftOut(scheduler="LMSDiscreteScheduler", why=_SCIPY, models="noise"),
    "ltx_euler_ancestral": LeftOut(
        scheduler="LTXEulerAncestralRFScheduler",
        why="it belongs to a video model; flow_match_euler_stochastic is its like for images",
    ),
    "minimax_h3": LeftOut(
        scheduler="MiniMaxH3Scheduler", why="it belongs to a video model and counts steps by ends"
    ),
    "piflow": LeftOut(
        scheduler="PiflowScheduler",
        why="it is not linear: it integrates a policy network's mixture",
    ),
    "pndm_prk": LeftOut(
        scheduler="PNDMScheduler",
        why="with skip_prk_steps=False it keeps the model outputs of 13 calls",
        models="noise",
    ),
    "repaint": LeftOut(
        scheduler="RePaintScheduler", why="its step wants an image and a mask", models="noise"
    ),
    "rfd4_proteina": LeftOut(
        scheduler="RFD4ProteinaScheduler", why="it places atoms of proteins, not latents"
    ),
    "scm": LeftOut(
        scheduler="SCMScheduler", why="its models are called inside a transformation of its latents"
    ),
    "sde_ve": LeftOut(
        scheduler="ScoreSdeVeScheduler",
        why="it is not linear: its corrector's step depends on the norms of its inputs",
    ),
    "sde_vp": LeftOut(
        scheduler="ScoreSdeVpScheduler", why="it has no step that starts from a model's output"
    ),
    "unclip": LeftOut(
        scheduler="UnCLIPScheduler", why="its step wants the timestep before from the caller"
    ),
    "unipc_bh1": LeftOut(
        scheduler="UniPCMultistepScheduler",
        why="with solver_type=bh1 its last step, to zero noise, is not finite",
        models="noise",
    ),
    "vq_diffusion": LeftOut(scheduler="VQDiffusionScheduler", why=_TOKENS),
}


def unknown_sampler(value: object) -> str:
    """Why ``value`` is no sampler's name and which names are near, to follow "sampler is 'x'"."""
    asked = value.strip().lower() if isinstance(value, str) else ""
    plain = asked.replace("++", "pp").replace(" ", "_").replace("-", "_")
    near = difflib.get_close_matches(plain, SAMPLERS, n=3, cutoff=0.6)
    advice = f"did you mean {' or '.join(near)}?" if near else "some are ddim, euler and unipc."
    why = ""
    if plain in LEFT_OUT:
        why = f"{LEFT_OUT[plain].scheduler} is not offered, because {LEFT_OUT[plain].why}: "
    elif plain.endswith("_beta"):
        why = f"beta spacing is not offered, because {_SCIPY}: "
    return f"{why}{advice} docs/samplers.md lists all {len(SAMPLERS)}"
