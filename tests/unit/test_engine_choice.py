"""engine=auto: stepwise where the model allows it, else pipeline, and the reason."""

from __future__ import annotations

import inspect
import json

import diffusers
import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from conf.errors import ConfigError, ModelUnusable, RowRejected
from operators.engine_choice import choose_engine
from operators.model_files import describe_model
from operators.nonlinear_options import CLIPPING, LEARNING, nonlinear_option
from operators.sampler_names import SPECS
from operators.sampler_table import compile_sampler
from tests.stepwise_rows import load
from tests.tiny_model import build_tiny_stable_diffusion
from tests.tiny_others import build_tiny_latent_diffusion
from tests.tiny_pixart import build_tiny_pixart


@pytest.fixture
def folder(tmp_path):
    return build_tiny_stable_diffusion(tmp_path / "sd")


def change(folder, part, **options):
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    file = folder / part / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **options}))


def chosen(folder, sampler="ddim"):
    choice = choose_engine("auto", describe_model(str(folder)), sampler)
    return choice.name, choice.why


def test_a_model_with_an_adapter_and_a_linear_sampler_runs_stepwise(folder):
    why = "StableDiffusionPipeline has an adapter and sampler ddim is linear"
    assert chosen(folder) == ("stepwise", why)
    assert chosen(folder, "default")[1].endswith("its own scheduler is linear")


def test_a_model_without_adapter_runs_as_a_pipeline(tmp_path):
    folder = build_tiny_latent_diffusion(tmp_path)
    why = "LDMTextToImagePipeline has no adapter for the stepwise engine"
    assert chosen(folder) == ("pipeline", why)


def test_a_scheduler_that_clips_runs_as_a_pipeline(folder):
    change(folder, "scheduler", thresholding=True)
    why = "the model's scheduler has thresholding=True, with which sampler ddim is not linear"
    assert chosen(folder) == ("pipeline", why)
    assert chosen(folder, "euler")[0] == "stepwise"


def test_what_the_pipeline_corrects_in_its_scheduler_is_no_hindrance(folder):
    change(folder, "scheduler", clip_sample=True)
    assert chosen(folder)[0] == "stepwise"
    compile_sampler(load(folder)._family.scheduler_config, "ddim", 3)


def test_a_unet_that_wants_more_than_the_adapter_gives_runs_as_a_pipeline(folder):
    change(folder, "unet", time_cond_proj_dim=16)
    assert chosen(folder) == (
        "pipeline",
        "the UNet has time_cond_proj_dim=16, which the stepwise engine does not give",
    )


def test_what_is_asked_for_is_taken(folder, tmp_path):
    assert choose_engine("pipeline", describe_model(str(folder)), "ddim").name == "pipeline"
    other = describe_model(str(build_tiny_latent_diffusion(tmp_path / "ldm")))
    with pytest.raises(ModelUnusable, match="has adapters for StableDiffusionPipeline, "):
        choose_engine("stepwise", other, "ddim")


@pytest.mark.parametrize(
    ("part", "options", "why"),
    [
        ("scheduler", {"thresholding": True}, "with which sampler ddim is not linear"),
        ("unet", {"time_cond_proj_dim": 16}, "the UNet has time_cond_proj_dim=16"),
    ],
)
def test_the_stepwise_engine_cannot_be_asked_for_what_it_cannot_do(folder, part, options, why):
    assert choose_engine("stepwise", describe_model(str(folder)), "ddim").why == "asked for"
    change(folder, part, **options)
    with pytest.raises(ConfigError, match=f"engine=stepwise: .*{why}") as told:
        choose_engine("stepwise", describe_model(str(folder)), "ddim")
    assert "give engine=pipeline or another sampling.sampler" in str(told.value)
    assert choose_engine("pipeline", describe_model(str(folder)), "ddim").why == "asked for"


def test_the_options_of_each_scheduler_are_those_of_diffusers():
    names = ("clip_sample", "clip_denoised", "thresholding", "dynamic_thresholding")
    found = {}
    for scheduler in {spec.scheduler for spec in SPECS.values()} | set(CLIPPING):
        parameters = inspect.signature(getattr(diffusers, scheduler)).parameters
        known = {name: parameters[name].default for name in names if name in parameters}
        found |= {scheduler: known} if known else {}
        assert ("variance_type" in parameters) == (scheduler in LEARNING)
    assert found == CLIPPING


def test_the_models_own_scheduler_also_does_what_its_class_does_by_default():
    saved = {"_class_name": "DDIMScheduler"}
    assert nonlinear_option(saved, "default") == "clip_sample=True"
    assert nonlinear_option(saved, "ddim") is None
    loaded = {**DDIMScheduler().config, **saved}
    assert nonlinear_option(loaded, "default") == "clip_sample=True"
    learned = {"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "learned"}
    assert nonlinear_option(learned, "default") == "variance_type=learned"


def test_the_models_own_scheduler_has_a_table_where_it_is_linear():
    scheduler = EulerDiscreteScheduler(use_karras_sigmas=True)
    own = {**scheduler.config, "_class_name": "EulerDiscreteScheduler"}
    table = compile_sampler(own, "default", 5)
    named = compile_sampler(own, "euler_karras", 5)
    assert (table.timesteps == named.timesteps).all()
    assert (table.m_coefs == named.m_coefs).all()
    with pytest.raises(RowRejected) as caught:
        compile_sampler({"_class_name": "DDIMScheduler"}, "default", 5)
    assert "sampler default (DDIMScheduler) cannot be compiled" in caught.value.message


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [("AmusedScheduler", "discrete tokens"), ("MyScheduler", "diffusers has no such scheduler")],
)
def test_a_scheduler_of_another_kind_has_no_table(scheduler, why):
    with pytest.raises(RowRejected) as caught:
        compile_sampler({"_class_name": scheduler}, "default", 5)
    assert caught.value.reason == "sampler_unfit"
    assert why in caught.value.message


def test_the_families_agree_with_the_choice(tmp_path):
    assert chosen(build_tiny_pixart(tmp_path), "dpmpp_2m")[0] == "stepwise"
