"""Sampler tables: their shape, what they refuse, what they leave behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_runs import NOISE, error_of

from conf.errors import RowRejected
from operators.sampler_names import samplers_for
from operators.sampler_table import compile_sampler
from operators.samplers import make_scheduler

CLASSIC = ("ddim", "dpmpp_2m", "euler", "euler_ancestral", "heun", "lcm", "pndm", "unipc")
WINDOWS = {"heun": 2, "dpmpp_2m": 2, "dpmpp_2m_sde": 2, "deis": 2, "dpm2_ancestral": 2}
WINDOWS |= {"unipc": 3, "dpmpp_3m": 3, "dpmpp_3s": 3, "sa_solver": 3, "pndm": 4, "unipc_order3": 4}


def compare(config, sampler, steps, **options):
    """The table follows diffusers, or is refused where diffusers is."""
    error = error_of(config, sampler, steps, **options)
    if error is None:
        with pytest.raises(RowRejected) as caught:
            compile_sampler(config, sampler, steps)
        assert caught.value.reason == "sampler_failed"
        assert sampler in caught.value.message
        return False
    assert error <= 5e-5
    return True


@settings(max_examples=60, deadline=None)
@given(
    sampler=st.sampled_from(samplers_for("noise")),
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
        **NOISE,
        "timestep_spacing": spacing,
        "beta_schedule": schedule,
        "prediction_type": prediction_type,
    }
    compare(config, sampler, steps, seed=seed)


@pytest.mark.parametrize("sampler", [*WINDOWS, "ddim", "ddpm", "euler", "lcm", "tcd"])
def test_the_window_is_the_shortest(sampler):
    assert compile_sampler(NOISE, sampler, 20).window == WINDOWS.get(sampler, 1)


@pytest.mark.parametrize(("sampler", "calls"), [("heun", 39), ("pndm", 21), ("ddim", 20)])
def test_model_calls_are_counted(sampler, calls):
    table = compile_sampler(NOISE, sampler, 20)
    assert table.calls == calls
    assert table.x_coefs.shape == table.m_coefs.shape == (calls, table.window)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m_karras"])
def test_a_thousand_steps_compile(sampler):
    assert compare(NOISE, sampler, 1000)


def test_noise_is_drawn_where_diffusers_draws_it():
    assert not compile_sampler(NOISE, "ddim", 5).draws.any()
    assert compile_sampler(NOISE, "lcm", 5).draws.tolist() == [True] * 4 + [False]
    last = compile_sampler(NOISE, "dpmpp_2m_sde", 5)
    assert last.draws.all()
    assert last.noise_coefs[-1] == 0


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm", "tcd"])
def test_clipping_is_refused_by_name(sampler):
    with pytest.raises(RowRejected, match="clip_sample=True") as caught:
        compile_sampler({**NOISE, "clip_sample": True}, sampler, 5)
    assert (caught.value.stage, caught.value.reason) == ("denoise", "sampler_not_linear")


def test_clipping_that_the_model_does_not_ask_for_is_off():
    config = {name: value for name, value in NOISE.items() if name != "clip_sample"}
    assert compile_sampler(config, "ddim", 5).window == 1
    filled_in = {**config, "clip_sample": True, "_use_default_values": ["clip_sample"]}
    assert compile_sampler(filled_in, "ddim", 5).window == 1


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "unipc", "deis"])
def test_thresholding_is_refused_by_name(sampler):
    with pytest.raises(RowRejected, match="thresholding=True") as caught:
        compile_sampler({**NOISE, "thresholding": True}, sampler, 5)
    assert caught.value.reason == "sampler_not_linear"


def test_learned_variance_is_refused_by_name():
    with pytest.raises(RowRejected, match="variance_type=learned_range"):
        compile_sampler({**NOISE, "variance_type": "learned_range"}, "ddpm", 5)


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
        compile_sampler({**NOISE, "beta_end": 0.0119}, "ddim", 7)
    assert caught.value.reason == "sampler_not_linear"


def test_tables_are_remembered_and_cannot_be_changed():
    table = compile_sampler(NOISE, "euler", 9)
    assert compile_sampler(dict(NOISE), "euler", 9) is table
    with pytest.raises(ValueError, match="read-only"):
        table.x_coefs[0, 0] = 1.0


def test_compiling_leaves_diffusers_as_it_was():
    from diffusers.schedulers import scheduling_lcm
    from diffusers.utils.torch_utils import randn_tensor

    compile_sampler(NOISE, "lcm", 6)
    with pytest.raises(RowRejected):
        compile_sampler(NOISE, "lcm", 999)
    assert scheduling_lcm.randn_tensor is randn_tensor


def test_coefficients_are_finite():
    for sampler in CLASSIC:
        table = compile_sampler(NOISE, sampler, 20)
        assert np.isfinite(table.x_coefs).all()
        assert np.isfinite(table.m_coefs).all()
