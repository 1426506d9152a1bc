"""What the samplers are called, which models they are for, and how the others are refused."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import diffusers
import pytest
import torch
from sampler_runs import DYNAMIC, EDM, FLOW, NOISE, config_for, run_scheduler

from conf.errors import RowRejected
from operators.flow_shift import even_sigmas
from operators.sampler_names import SAMPLERS, SPECS, SamplerSpec, samplers_for
from operators.sampler_table import compile_sampler
from operators.samplers import model_kind
from operators.samplers_left_out import LEFT_OUT, unknown_sampler

SCHEDULERS = Path(diffusers.__file__).parent / "schedulers"
SINCE_THE_START = (
    "ddim",
    "ddpm",
    "deis",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "euler",
    "euler_ancestral",
    "heun",
    "lcm",
    "pndm",
    "tcd",
    "unipc",
)


def refusal(config, sampler, steps=5, **schedule):
    with pytest.raises(RowRejected) as caught:
        compile_sampler(config, sampler, steps, **schedule)
    assert caught.value.stage == "denoise"
    assert SPECS[sampler].scheduler in caught.value.message
    assert sampler in caught.value.message
    return caught.value


def test_every_scheduler_that_diffusers_ships_is_named_or_left_out_with_a_reason():
    texts = [file.read_text() for file in SCHEDULERS.rglob("scheduling_*.py")]
    shipped = {
        name for text in texts for name in re.findall(r"^class (\w+)\(SchedulerMixin", text, re.M)
    }
    shipped |= {"ConsistencyDecoderScheduler"}
    assert len(shipped) > 40
    known = {spec.scheduler for spec in SPECS.values()}
    assert shipped - known - {one.scheduler for one in LEFT_OUT.values()} == set()
    assert known - shipped == set()


def test_no_name_is_lost():
    assert set(SINCE_THE_START) <= set(SAMPLERS)
    assert not set(LEFT_OUT) & set(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_model_calls_are_counted_without_a_table(sampler):
    for steps in (1, 2, 3, 9):
        calls = compile_sampler(config_for(sampler), sampler, steps).calls
        assert SPECS[sampler].model_calls(steps) == calls


@pytest.mark.parametrize(
    ("twin", "name"), [("DDIMParallelScheduler", "ddim"), ("DDPMParallelScheduler", "ddpm")]
)
def test_twins_compute_the_same(twin, name):
    ends = []
    for class_name in (twin, SPECS[name].scheduler):
        scheduler = getattr(diffusers, class_name).from_config(NOISE)
        scheduler.set_timesteps(6)
        ends.append(run_scheduler(scheduler)[0])
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ("dpmpp_2m_kaaras", ["did you mean dpmpp_2m_karras or"]),
        ("DPM++ 2M Karras", ["did you mean dpmpp_2m_karras or"]),
        ("DDIM", ["did you mean ddim"]),
        ("magic", ["some are ddim, euler and unipc", str(len(SAMPLERS)), "docs/samplers.md"]),
        (3, ["some are ddim"]),
        ("lms", ["LMSDiscreteScheduler", "SciPy"]),
        ("euler_beta", ["beta spacing", "SciPy", "euler"]),
        ("dpm_sde", ["DPMSolverSDEScheduler", "Brownian tree"]),
        ("vq_diffusion", ["VQDiffusionScheduler", "not linear", "discrete tokens"]),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones_or_the_reason(asked, parts):
    answer = unknown_sampler(asked)
    assert [part for part in parts if part not in answer] == []


def test_the_reasons_name_a_library_only_while_it_is_absent():
    with pytest.raises(ImportError):
        diffusers.LMSDiscreteScheduler()
    with pytest.raises(ImportError):
        diffusers.DPMSolverSDEScheduler()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "noise"),
        ({"_class_name": "PNDMScheduler"}, "noise"),
        ({"_class_name": "LMSDiscreteScheduler"}, "noise"),
        ({"_class_name": "DPMSolverMultistepScheduler"}, "noise"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, "flow"),
        ({"prediction_type": "flow_prediction"}, "flow"),
        ({"shift": 3.0}, "flow"),
        ({"sigma_data": 0.5}, "edm"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "flow"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "edm"),
        ({"_class_name": "IPNDMScheduler"}, "own"),
        ({"_class_name": "AmusedScheduler"}, "own"),
    ],
)
def test_a_model_is_known_by_its_scheduler(config, kind):
    assert model_kind(config) == kind


@pytest.mark.parametrize(
    ("config", "sampler", "parts"),
    [
        (FLOW, "ddim", ["for models trained on a noise schedule", "flow models"]),
        (FLOW, "dpmpp_2m_karras", ["for models trained on a noise schedule", "flow models"]),
        (NOISE, "flow_match_euler", ["for flow models", "models trained on a noise schedule"]),
        (EDM, "euler", ["for models trained on a noise schedule", "EDM models"]),
        (NOISE, "edm_euler", ["for EDM models"]),
        (NOISE, "ipndm", ["for models of IPNDMScheduler"]),
        ({"_class_name": "AmusedScheduler"}, "euler", ["models of AmusedScheduler"]),
        ({"_class_name": "IPNDMScheduler"}, "consistency", ["models of IPNDMScheduler"]),
        (DYNAMIC, "flow_match_heun", ["no option use_dynamic_shifting"]),
        (DYNAMIC, "sa_solver", ["no option use_dynamic_shifting"]),
    ],
)
def test_a_sampler_that_cannot_follow_the_model_is_refused(config, sampler, parts):
    error = refusal(config, sampler, mu=0.7)
    assert error.reason == "sampler_unfit"
    assert [part for part in parts if part not in error.message] == []


def test_a_model_that_shifts_by_size_wants_a_mu():
    with pytest.raises(ValueError, match=r"no mu was given; pass mu=dynamic_mu"):
        compile_sampler(DYNAMIC, "flow_match_euler", 5)


def test_a_linear_time_shift_is_refused_where_diffusers_has_none():
    config = {**DYNAMIC, "time_shift_type": "linear"}
    error = refusal(config, "dpmpp_2m", mu=0.7)
    assert (error.reason, "time_shift_type=linear" in error.message) == ("sampler_unfit", True)
    assert compile_sampler(config, "unipc", 5, mu=0.7).calls == 5


@pytest.mark.parametrize("option", ["clip_sample", "thresholding"])
def test_an_option_that_is_not_linear_is_refused_with_the_scheduler(option):
    takers = [
        name
        for name in samplers_for("noise")
        if option in inspect.signature(getattr(diffusers, SPECS[name].scheduler)).parameters
    ]
    assert len(takers) > 5
    for sampler in takers:
        error = refusal({**NOISE, option: True}, sampler)
        assert (error.reason, f"{option}=True" in error.message) == ("sampler_not_linear", True)


def test_a_clipped_consistency_model_is_refused():
    config = {"_class_name": "CMStochasticIterativeScheduler", "clip_denoised": True}
    assert "clip_denoised=True" in refusal(config, "consistency").message


@pytest.mark.parametrize("scheduler", ["EntropyBoundScheduler", "DiscreteDDIMScheduler"])
def test_a_scheduler_that_is_not_linear_by_nature_is_found_by_the_replay(monkeypatch, scheduler):
    monkeypatch.setitem(
        SPECS, "tried", SamplerSpec(scheduler=scheduler, about="", models=("noise",))
    )
    error = refusal(NOISE, "tried", 1)
    assert (error.reason, "replay" in error.message) == ("sampler_not_linear", True)


def test_tables_of_different_shifts_are_kept_apart():
    tables = [compile_sampler(DYNAMIC, "flow_match_euler", 4, mu=mu) for mu in (0.5, 1.0)]
    tables.append(compile_sampler(DYNAMIC, "flow_match_euler", 4, mu=1.0, sigmas=even_sigmas(4)))
    assert len({tuple(table.timesteps) for table in tables}) == 3
    assert compile_sampler(DYNAMIC, "flow_match_euler", 4, mu=1.0) is tables[1]
