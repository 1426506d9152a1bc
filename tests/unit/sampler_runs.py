"""One latent through an unmodified diffusers scheduler and through its table."""

from __future__ import annotations

import inspect
import sys
import warnings
from unittest import mock

import torch

from operators.sampler_names import SPECS
from operators.sampler_table import compile_sampler
from operators.samplers import make_scheduler, set_timesteps, step_arguments

SHAPE = (1, 4, 4, 4)
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DYNAMIC = {**FLOW, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
EDM = {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}


def config_for(sampler):
    """A scheduler configuration of a model that the sampler is for."""
    kind = SPECS[sampler].models[0]
    own = {"_class_name": SPECS[sampler].scheduler}
    return {"noise": NOISE, "flow": FLOW, "edm": EDM, "own": own}[kind]


def fake_model(latent, timestep):
    """A nonlinear model that depends on place, neighbours and time."""
    return torch.tanh(latent * 0.7 + 0.3 * latent.roll(1, -1)) + float(timestep) / 2000


def run_scheduler(scheduler, *, seed=3, dtype=torch.float32):
    """The last latent, and every draw of noise, of a scheduler whose timesteps are set."""
    draws = []
    module = sys.modules[type(scheduler).__module__]
    original = getattr(module, "randn_tensor", None)

    def recorded(*arguments, **options):
        draws.append(original(*arguments, **options))
        return draws[-1]

    generator = torch.Generator("cpu").manual_seed(seed)
    sigma = getattr(scheduler, "init_noise_sigma", 1.0)
    latent = torch.randn(SHAPE, generator=generator).to(dtype) * sigma
    arguments = step_arguments(scheduler)
    if "generator" in inspect.signature(scheduler.step).parameters:
        arguments["generator"] = generator
    with mock.patch.object(module, "randn_tensor", recorded, create=True):
        for t in scheduler.timesteps:
            scaled = latent
            if hasattr(scheduler, "scale_model_input"):
                scaled = scheduler.scale_model_input(latent, t)
            output = fake_model(scaled, t)
            latent = scheduler.step(output, t, latent, **arguments, return_dict=False)[0]
    return latent.double(), draws


def run_diffusers(config, sampler, steps, *, mu=None, sigmas=None, **options):
    """diffusers announces changes of options and of numpy, which are not ours to heed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make_scheduler(config, sampler)
        set_timesteps(scheduler, steps, mu=mu, sigmas=sigmas)
        return run_scheduler(scheduler, **options)


def run_table(table, *, seed=3, dtype=torch.float32, draws=None):
    """The last latent; noise is drawn as the engine draws it, or taken from ``draws``."""
    generator = torch.Generator("cpu").manual_seed(seed)
    first = torch.randn(SHAPE, generator=generator).to(dtype) * table.init_noise_sigma
    given = iter(draws or ())
    latents, outputs = [first], []
    for i in range(table.calls):
        outputs.append(fake_model(latents[-1] * table.input_scales[i], table.timesteps[i]))
        after = torch.zeros_like(first)
        for k in range(min(table.window, i + 1)):
            after += table.x_coefs[i, k] * latents[-1 - k] + table.m_coefs[i, k] * outputs[-1 - k]
        if table.draws[i]:
            noise = torch.randn(SHAPE, generator=generator) if draws is None else next(given)
            after += table.noise_coefs[i] * noise.to(dtype)
        latents.append(after)
    assert next(given, None) is None, "the scheduler draws more noise than its table"
    return latents[-1].double()


def error_of(config, sampler, steps, *, dtype=torch.float32, seed=3, **schedule):
    """How far table and scheduler are apart, relative to the latent; None if diffusers refuses."""
    try:
        expected, draws = run_diffusers(config, sampler, steps, dtype=dtype, seed=seed, **schedule)
    except Exception:  # noqa: BLE001 - diffusers refuses with many types
        return None
    if not expected.isfinite().all():
        return None
    table = compile_sampler(config, sampler, steps, **schedule)
    given = draws if dtype == torch.float64 else None
    made = run_table(table, dtype=dtype, seed=seed, draws=given)
    return float((made - expected).abs().max()) / max(1.0, float(expected.abs().max()))
