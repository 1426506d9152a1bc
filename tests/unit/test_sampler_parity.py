"""Every sampler's table against the unmodified diffusers scheduler, along whole trajectories."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_runs import (
    DYNAMIC,
    EDM,
    FLOW,
    NOISE,
    SHAPE,
    config_for,
    error_of,
    fake_model,
    run_scheduler,
    run_table,
)

from operators.device import HostDevice
from operators.flow_shift import dynamic_mu, even_sigmas
from operators.sampler_names import SAMPLERS, SPECS, samplers_for
from operators.sampler_table import compile_sampler
from operators.slots import Slots, start_row

EXACT = 1e-6
"""Relative, in float64: some schedulers of diffusers compute in float32 whatever they are given."""
CLOSE = 1e-4
"""Relative, in float32."""
NO_SAMPLE_PREDICTION = {"euler_ancestral", "pndm", "dpm2", "dpm2_ancestral"}
"""diffusers refuses these for models that predict the sample, in all spacings."""


def other_predictions():
    for name in samplers_for("noise"):
        base = name.removesuffix(f"_{SPECS[name].spacing}")
        yield name, "v_prediction", NOISE
        if base not in NO_SAMPLE_PREDICTION:
            yield name, "sample", NOISE
    for name in samplers_for("edm"):
        yield name, "v_prediction", EDM


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_table_is_its_scheduler_exactly_in_double_precision(sampler):
    for steps in (1, 2, 3, 9):
        error = error_of(config_for(sampler), sampler, steps, dtype=torch.float64)
        assert error is not None
        assert error <= EXACT, steps


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_table_follows_its_scheduler_in_single_precision(sampler):
    error = error_of(config_for(sampler), sampler, 9)
    assert error is not None
    assert error <= CLOSE


@pytest.mark.parametrize(("sampler", "prediction", "config"), [*other_predictions()])
def test_other_predictions_are_followed(sampler, prediction, config):
    config = {**config, "prediction_type": prediction}
    for steps, dtype, limit in ((5, torch.float64, EXACT), (5, torch.float32, CLOSE)):
        error = error_of(config, sampler, steps, dtype=dtype)
        assert error is not None
        assert error <= limit, dtype


@pytest.mark.parametrize("sampler", samplers_for("flow"))
def test_flow_models_are_followed_with_and_without_dynamic_shift(sampler):
    dynamic = {"mu": dynamic_mu(DYNAMIC, 1024), "sigmas": even_sigmas(5)}
    cases = [(FLOW, {}), (DYNAMIC, dynamic)]
    for config, schedule in cases[: 1 if sampler in ("flow_match_heun", "sa_solver") else 2]:
        for dtype, limit in ((torch.float64, EXACT), (torch.float32, CLOSE)):
            error = error_of(config, sampler, 5, dtype=dtype, **schedule)
            assert error is not None
            assert error <= limit, (config, dtype)


@settings(max_examples=60, deadline=None)
@given(
    sampler=st.sampled_from(samplers_for("flow")),
    steps=st.integers(1, 40),
    shift=st.floats(0.5, 7.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_shift_is_followed(sampler, steps, shift, seed):
    error = error_of({**FLOW, "shift": shift}, sampler, steps, seed=seed)
    assert error is not None
    assert error <= 1e-3


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(64, 20_000),
    steps=st.integers(1, 30),
    flux=st.booleans(),
    max_shift=st.sampled_from([1.15, 1.16, 0.9]),
    shift_type=st.sampled_from(["exponential", "linear"]),
)
def test_a_dynamic_shift_is_that_of_the_pipelines(tokens, steps, flux, max_shift, shift_type):
    """What FluxPipeline and StableDiffusion3Pipeline do between the latent and the scheduler."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, max_shift=max_shift, time_shift_type=shift_type
    )
    config = scheduler.config
    mu = calculate_shift(
        tokens,
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    sigmas = even_sigmas(steps) if flux else None
    given = {"sigmas": list(sigmas)} if sigmas else {"num_inference_steps": steps}
    timesteps, _ = retrieve_timesteps(scheduler, device="cpu", mu=mu, **given)
    expected, _ = run_scheduler(scheduler)
    made_mu = dynamic_mu(config, tokens)
    table = compile_sampler(config, "flow_match_euler", steps, mu=made_mu, sigmas=sigmas)
    assert made_mu == pytest.approx(mu, abs=1e-12)
    assert table.timesteps.tolist() == timesteps.tolist()
    assert float((run_table(table) - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        (
            "dpmpp_2m",
            diffusers.DPMSolverMultistepScheduler(
                use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
            ),
        ),
        (
            "unipc",
            diffusers.UniPCMultistepScheduler(
                use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
            ),
        ),
        ("flow_match_euler", diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)),
    ],
)
@pytest.mark.parametrize("config", [FLOW, {"use_flow_sigmas": True, "flow_shift": 3.0}])
def test_a_flow_model_keeps_its_shift_whatever_scheduler_it_was_saved_with(
    sampler, scheduler, config
):
    scheduler.set_timesteps(7)
    expected, _ = run_scheduler(scheduler)
    made = run_table(compile_sampler(config, sampler, 7))
    assert float((made - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize(
    ("sampler", "class_name", "options"),
    [
        ("dpmpp_2m_karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("dpmpp_2m_lu", "DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
        (
            "dpmpp_3m_sde_exponential",
            "DPMSolverMultistepScheduler",
            {
                "use_exponential_sigmas": True,
                "solver_order": 3,
                "algorithm_type": "sde-dpmsolver++",
            },
        ),
        ("dpm2_ancestral_karras", "KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}),
        ("euler_exponential", "EulerDiscreteScheduler", {"use_exponential_sigmas": True}),
        ("unipc_order3", "UniPCMultistepScheduler", {"solver_order": 3}),
        (
            "dpmpp_2s",
            "DPMSolverSinglestepScheduler",
            {"solver_order": 2, "lower_order_final": True},
        ),
        ("sa_solver", "SASolverScheduler", {}),
    ],
)
def test_a_name_means_the_options_that_it_says(sampler, class_name, options):
    plain = {name: value for name, value in NOISE.items() if name != "clip_sample"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = getattr(diffusers, class_name).from_config({**plain, **options})
        scheduler.set_timesteps(8)
        expected, _ = run_scheduler(scheduler)
    made = run_table(compile_sampler(NOISE, sampler, 8))
    assert float((made - expected).abs().max()) <= CLOSE * float(expected.abs().max())


@pytest.mark.parametrize("kind", ["noise", "flow"])
def test_rows_of_all_samplers_advance_together_as_they_do_alone(kind):
    """Through the slots of the engine: one einsum for rows of different windows and step counts."""
    names = samplers_for(kind)
    config = NOISE if kind == "noise" else FLOW
    tables = [compile_sampler(config, name, 2 + n % 5) for n, name in enumerate(names)]
    slots = Slots(SHAPE[1:], device=HostDevice())
    rows = [start_row(table, seed) for seed, table in enumerate(tables)]
    for row in rows:
        slots.enter(row)
    reached = {}
    while slots.rows:
        places = list(range(len(slots.rows)))
        latents, timesteps = slots.model_inputs(places)
        seen = zip(latents, timesteps, strict=True)
        outputs = torch.stack([fake_model(latent, timestep) for latent, timestep in seen])
        slots.commit(slots.next_latents(places, outputs), outputs)
        done = [place for place, row in enumerate(slots.rows) if row.finished]
        for place, latent in zip(done, slots.newest(done), strict=True):
            reached[id(slots.rows[place])] = latent
        slots.leave([slots.rows[place] for place in done])
    for seed, (row, table) in enumerate(zip(rows, tables, strict=True)):
        alone = run_table(table, seed=seed)[0]
        scale = max(1.0, float(alone.abs().max()))
        assert float((reached[id(row)] - alone).abs().max()) <= 5e-5 * scale, names[seed]
