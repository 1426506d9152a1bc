"""Sampler tables against the unmodified diffusers schedulers, along whole trajectories."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import RowRejected
from operators.request import SAMPLERS
from operators.sampler_table import compile_sampler
from operators.samplers import make_scheduler, step_arguments

CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
}
STEPS = (1, 2, 3, 5, 20, 50)
WINDOWS = {"heun": 2, "dpmpp_2m": 2, "dpmpp_2m_karras": 2, "dpmpp_2m_sde": 2, "deis": 2}
WINDOWS |= {"unipc": 3, "pndm": 4}


def fake_model(latent, timestep):
    """A nonlinear model that depends on place, neighbours and time."""
    return torch.tanh(latent * 0.7 + 0.3 * latent.roll(1, -1)) + float(timestep) / 2000


def run_diffusers(config, sampler, steps, *, seed=3, dtype=torch.float32):
    scheduler = make_scheduler(config, sampler)
    scheduler.set_timesteps(steps)
    generator = torch.Generator("cpu").manual_seed(seed)
    latent = torch.randn((1, 4, 4, 4), generator=generator).to(dtype) * scheduler.init_noise_sigma
    arguments = step_arguments(scheduler)
    if "generator" in inspect.signature(scheduler.step).parameters:
        arguments["generator"] = generator
    for t in scheduler.timesteps:
        output = fake_model(scheduler.scale_model_input(latent, t), t)
        latent = scheduler.step(output, t, latent, **arguments, return_dict=False)[0]
    return latent.double()


def run_table(config, sampler, steps, *, seed=3, dtype=torch.float32):
    table = compile_sampler(config, sampler, steps)
    generator = torch.Generator("cpu").manual_seed(seed)
    first = torch.randn((1, 4, 4, 4), generator=generator).to(dtype) * table.init_noise_sigma
    latents, outputs = [first], []
    for i in range(table.calls):
        scaled = latents[-1] * table.input_scales[i]
        outputs.append(fake_model(scaled, table.timesteps[i]))
        after = torch.zeros_like(first)
        for k in range(min(table.window, i + 1)):
            after += table.x_coefs[i, k] * latents[-1 - k] + table.m_coefs[i, k] * outputs[-1 - k]
        if table.draws[i]:
            noise = torch.randn((1, 4, 4, 4), generator=generator, dtype=torch.float32)
            after += table.noise_coefs[i] * noise.to(dtype)
        latents.append(after)
    return latents[-1].double()


def quietly(run, *arguments, **options):
    """diffusers' DEIS calls numpy in a way that numpy announces to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(*arguments, **options)


def compare(config, sampler, steps, **options):
    try:
        expected = quietly(run_diffusers, config, sampler, steps, **options)
    except Exception:  # noqa: BLE001 - diffusers refuses with many types
        expected = None
    if expected is None or not expected.isfinite().all():
        with pytest.raises(RowRejected) as caught:
            compile_sampler(config, sampler, steps)
        assert caught.value.reason == "sampler_failed"
        assert sampler in caught.value.message
        return False
    made = run_table(config, sampler, steps, **options)
    scale = max(1.0, float(expected.abs().max()))
    assert float((made - expected).abs().max()) <= 5e-5 * scale
    return True


def draws_of_double_noise_differ(sampler, dtype):
    """These schedulers draw in the latent's precision; the engine's latents are float32."""
    return dtype == torch.float64 and sampler in {"ddpm", "lcm", "tcd", "euler_ancestral"}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_table_follows_diffusers(sampler, prediction_type):
    config = {**CONFIG, "prediction_type": prediction_type}
    done = [compare(config, sampler, steps) for steps in STEPS]
    unsupported = prediction_type == "sample" and sampler in {"euler_ancestral", "pndm"}
    assert all(done) or unsupported


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_table_follows_diffusers_in_double_precision(sampler):
    if draws_of_double_noise_differ(sampler, torch.float64):
        config = {**CONFIG, "prediction_type": "v_prediction"}
        assert compare(config, sampler, 1, dtype=torch.float64)
        return
    for steps in STEPS:
        assert compare(CONFIG, sampler, steps, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    sampler=st.sampled_from(SAMPLERS),
    steps=st.integers(1, 60),
    spacing=st.sampled_from(["leading", "linspace", "trailing"]),
    schedule=st.sampled_from(["linear", "scaled_linear"]),
    prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_table_follows_diffusers_for_any_noise_schedule(
    sampler, steps, spacing, schedule, prediction_type, seed
):
    config = {
        **CONFIG,
        "timestep_spacing": spacing,
        "beta_schedule": schedule,
        "prediction_type": prediction_type,
    }
    compare(config, sampler, steps, seed=seed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_window_is_the_shortest(sampler):
    assert compile_sampler(CONFIG, sampler, 20).window == WINDOWS.get(sampler, 1)


@pytest.mark.parametrize(("sampler", "calls"), [("heun", 39), ("pndm", 21), ("ddim", 20)])
def test_model_calls_are_counted(sampler, calls):
    table = compile_sampler(CONFIG, sampler, 20)
    assert table.calls == calls
    assert table.x_coefs.shape == table.m_coefs.shape == (calls, table.window)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m_karras"])
def test_a_thousand_steps_compile(sampler):
    assert compare(CONFIG, sampler, 1000)


def test_noise_is_drawn_where_diffusers_draws_it():
    assert not compile_sampler(CONFIG, "ddim", 5).draws.any()
    assert compile_sampler(CONFIG, "lcm", 5).draws.tolist() == [True] * 4 + [False]
    last = compile_sampler(CONFIG, "dpmpp_2m_sde", 5)
    assert last.draws.all()
    assert last.noise_coefs[-1] == 0


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm", "tcd"])
def test_clipping_is_refused_by_name(sampler):
    with pytest.raises(RowRejected, match="clip_sample=True") as caught:
        compile_sampler({**CONFIG, "clip_sample": True}, sampler, 5)
    assert (caught.value.stage, caught.value.reason) == ("denoise", "sampler_not_linear")


def test_clipping_that_the_model_does_not_ask_for_is_off():
    config = {name: value for name, value in CONFIG.items() if name != "clip_sample"}
    assert compile_sampler(config, "ddim", 5).window == 1
    filled_in = {**config, "clip_sample": True, "_use_default_values": ["clip_sample"]}
    assert compile_sampler(filled_in, "ddim", 5).window == 1


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "unipc", "deis"])
def test_thresholding_is_refused_by_name(sampler):
    with pytest.raises(RowRejected, match="thresholding=True") as caught:
        compile_sampler({**CONFIG, "thresholding": True}, sampler, 5)
    assert caught.value.reason == "sampler_not_linear"


def test_learned_variance_is_refused_by_name():
    with pytest.raises(RowRejected, match="variance_type=learned_range"):
        compile_sampler({**CONFIG, "variance_type": "learned_range"}, "ddpm", 5)


def test_a_scheduler_that_turns_out_not_to_be_linear_is_refused(monkeypatch):
    original = make_scheduler

    def squaring(config, sampler):
        scheduler = original(config, sampler)
        plain = scheduler.step
        scheduler.step = lambda output, t, latent, **options: plain(
            output.clamp(-0.5, 0.5), t, latent, **options
        )
        return scheduler

    monkeypatch.setattr("operators.sampler_table.make_scheduler", squaring)
    with pytest.raises(RowRejected, match="replay") as caught:
        compile_sampler({**CONFIG, "beta_end": 0.0119}, "ddim", 7)
    assert caught.value.reason == "sampler_not_linear"


def test_tables_are_remembered_and_cannot_be_changed():
    table = compile_sampler(CONFIG, "euler", 9)
    assert compile_sampler(dict(CONFIG), "euler", 9) is table
    with pytest.raises(ValueError, match="read-only"):
        table.x_coefs[0, 0] = 1.0


def test_compiling_leaves_diffusers_as_it_was():
    from diffusers.schedulers import scheduling_lcm
    from diffusers.utils.torch_utils import randn_tensor

    compile_sampler(CONFIG, "lcm", 6)
    with pytest.raises(RowRejected):
        compile_sampler(CONFIG, "lcm", 999)
    assert scheduling_lcm.randn_tensor is randn_tensor


def test_coefficients_are_finite():
    for sampler in SAMPLERS:
        table = compile_sampler(CONFIG, sampler, 20)
        assert np.isfinite(table.x_coefs).all()
        assert np.isfinite(table.m_coefs).all()
