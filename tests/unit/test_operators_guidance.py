"""Guidance that is a second pass, and guidance that is not: who counts it how."""

from __future__ import annotations

import importlib
import json

import pytest

from conf.schema import ModelConfig
from operators.engines import load_engine
from operators.families import FAMILIES
from operators.guidance import guidance_passes, has_two_pass_guidance
from operators.request import Request
from tests.engine_config import engine_config
from tests.stepwise_rows import load_model


def write_index(folder, pipeline_class):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline_class}))
    return str(folder)


@pytest.mark.parametrize(("pipeline_class", "module"), FAMILIES.items())
def test_what_is_told_without_loading_a_model_is_what_its_family_does(
    tmp_path, pipeline_class, module
):
    (said,) = {
        found.two_pass_guidance
        for found in vars(importlib.import_module(module)).values()
        if hasattr(found, "two_pass_guidance")
    }
    assert has_two_pass_guidance(load_model(write_index(tmp_path, pipeline_class))) is said


def test_a_folder_that_is_not_here_counts_as_guided_twice(tmp_path):
    assert has_two_pass_guidance(load_model(tmp_path / "nowhere"))
    assert has_two_pass_guidance(load_model("???"))


def test_only_guidance_above_one_is_a_pass():
    scales = (0.0, 1.0, 1.5)
    assert [guidance_passes(one, two_pass_guidance=True) for one in scales] == [1, 1, 2]
    assert [guidance_passes(one, two_pass_guidance=False) for one in scales] == [1, 1, 1]


@pytest.mark.parametrize(
    ("pipeline_class", "times"), [("StableDiffusionPipeline", 2), ("FluxPipeline", 1)]
)
def test_a_simulated_row_weighs_what_the_models_would(tmp_path, pipeline_class, times):
    engine = load_engine(
        engine_config("simulated", max_batch=2, simulated_seconds={1: 0.01}),
        ModelConfig(
            name="tiny",
            path=write_index(tmp_path, pipeline_class),
            revision=None,
            config=None,
            width=8,
            height=8,
            steps=3,
            guidance_scale=4.0,
            sampler="ddim",
            needs_gpu=False,
        ),
    )
    rows = [
        Request(
            image_id=str(number),
            row_id=number,
            image_index=0,
            prompt="a fox",
            negative_prompt="",
            seed=number,
            width=8,
            height=8,
            steps=3,
            guidance_scale=scale,
            sampler="ddim",
        )
        for number, scale in enumerate((4.0, 1.0))
    ]
    engine.admit(rows)
    outcomes = [outcome for _ in range(3) for outcome in engine.tick()]
    guided, plain = (outcome.device_ns for outcome in outcomes)
    # what is left of a division goes to the first
    assert guided == pytest.approx(times * plain, abs=10)
