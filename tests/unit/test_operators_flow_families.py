"""The families of flow models against the unmodified pipelines, and when things go wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from conf.errors import ModelUnusable
from operators.engine import ImageFailure, ImageResult
from operators.precision import name_of
from tests.pictured_samplers import (
    FLOW_SAMPLERS,
    NOISY_FLOW_SAMPLERS,
    SHIFTED_FLOW_SAMPLERS,
)
from tests.stepwise_rows import (
    ask,
    difference,
    load,
    mixed_requests,
    new_engine,
    reference,
    run,
)
from tests.tiny_flux import DYNAMIC_SHIFT, build_tiny_flux
from tests.tiny_model import SIZE
from tests.tiny_sd3 import build_tiny_sd3

FLOW = "flow_match_euler"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A tiny model, and the samplers that its pipeline can be given too."""

    build: Any
    options: dict[str, Any] = field(default_factory=dict)
    samplers: tuple[str, ...]


MODELS = {
    "sd3": Model(build=build_tiny_sd3, samplers=FLOW_SAMPLERS),
    "sd3_shifted_by_size": Model(
        build=build_tiny_sd3,
        options={"scheduler": DYNAMIC_SHIFT},
        samplers=SHIFTED_FLOW_SAMPLERS,
    ),
    "flux_dev": Model(build=build_tiny_flux, samplers=SHIFTED_FLOW_SAMPLERS),
    "flux_schnell": Model(
        build=build_tiny_flux,
        options={"guidance_embeds": False, "scheduler": {"shift": 1.0}},
        # the pipeline passes a mu to every one, which those of noise models refuse here
        samplers=(FLOW, "flow_match_euler_karras"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """Every test runs with each model."""
    return MODELS[request.param]


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return model.build(tmp_path_factory.mktemp("flow"), **model.options)


@pytest.fixture(scope="module")
def family(path):
    return load(path)._family


def test_pictures_are_those_of_diffusers_however_rows_are_mixed(model, path, family):
    requests = mixed_requests(model.samplers)
    assert len({request.width for request in requests}) == 2
    expected = reference(path, requests)
    together = run(new_engine(family), requests)
    for request in requests:
        made = together[request.row_id]
        assert isinstance(made, ImageResult), made
        assert difference(made.pixels, expected[request.row_id]) <= 1, request
        assert made.pixels.std() > 20


def test_a_row_alone_is_the_row_in_company(model, family):
    samplers = (*model.samplers, *NOISY_FLOW_SAMPLERS)
    rows = [ask(n, sampler=sampler, steps=3 + n % 4) for n, sampler in enumerate(samplers)]
    together = run(new_engine(family, max_batch=16), rows)
    for row in rows:
        alone = run(new_engine(family), [row])[row.row_id]
        assert difference(alone.pixels, together[row.row_id].pixels) <= 1


def test_different_rows_make_different_pictures(family):
    base = {"prompt": "a fox", "seed": 0, "sampler": FLOW}
    others = [
        {"seed": 9},
        {"prompt": "a dog"},
        {"steps": 7},
        {"sampler": "flow_match_euler_karras"},
    ]
    rows = [ask(n, **(base | other)) for n, other in enumerate([{}, *others])]
    made = run(new_engine(family), rows)
    assert all(difference(made[0].pixels, made[n + 1].pixels) > 3 for n in range(len(others)))


@pytest.mark.parametrize("stage", ["predict", "decode", "embed"])
def test_out_of_memory_loses_nothing(family, monkeypatch, stage):
    rows = [ask(n, sampler=FLOW, prompt=f"text {n}", guidance_scale=2.0 + n) for n in range(4)]
    expected = run(new_engine(family), rows)
    original, calls = getattr(family, stage), []

    def failing_once(*arguments):
        calls.append(len(arguments[0]))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*arguments)

    monkeypatch.setattr(family, stage, failing_once)
    made = run(new_engine(family), rows)
    assert calls[0] > calls[1] == calls[0] // 2
    assert all(difference(made[n].pixels, expected[n].pixels) <= 1 for n in expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_are_decoded_as_the_pipeline_decodes_them(path, dtype):
    pipeline = DiffusionPipeline.from_pretrained(path, dtype=dtype)
    family = load(path, precision=name_of(dtype))._family
    latents = torch.randn(2, 4, SIZE // 2, SIZE, generator=torch.Generator().manual_seed(0))
    given = latents.to(dtype)
    if hasattr(pipeline, "_pack_latents"):
        given = pipeline._pack_latents(given, 2, 4, SIZE // 2, SIZE)
    pipeline.scheduler.step = lambda output, t, latents, return_dict: (given,)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        ["a", "b"],
        height=SIZE,
        width=2 * SIZE,
        num_inference_steps=1,
        guidance_scale=1.0,
        output_type="pt",
    ).images
    with torch.inference_mode():
        made = family.decode(latents)
    assert made.dtype == dtype
    assert torch.equal((made * 0.5 + 0.5).clamp(0, 1), expected)


def test_a_sampler_of_noise_models_and_an_odd_size_cost_their_rows_only(family):
    rows = [ask(0, sampler=FLOW), ask(1, sampler="ddim"), ask(2, sampler=FLOW, width=SIZE + 2)]
    made = run(new_engine(family), rows)
    assert isinstance(made[0], ImageResult)
    assert isinstance(made[1], ImageFailure)
    assert (made[1].reason, made[2].reason) == ("sampler_unfit", "bad_size")
    assert f"{SIZE + 2}x{SIZE}; this model makes multiples of 4 pixels" in made[2].message


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_stay_near(path, family, precision):
    rows = [ask(0, steps=3, sampler=FLOW), ask(1, steps=4, sampler=FLOW, width=2 * SIZE)]
    made = run(load(path, precision=precision), rows)
    exact = run(new_engine(family), rows)
    for row_id, outcome in made.items():
        gap = abs(outcome.pixels.astype(int) - exact[row_id].pixels.astype(int))
        assert gap.mean() < 10


@pytest.mark.parametrize(
    ("build", "tokenizer"), [(build_tiny_sd3, "tokenizer_3"), (build_tiny_flux, "tokenizer_2")]
)
def test_a_tokenizer_that_cannot_be_read_here_says_what_to_install(
    tmp_path, monkeypatch, build, tokenizer
):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    folder = build(tmp_path) / tokenizer
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    with pytest.raises(ModelUnusable, match="pip install sentencepiece") as caught:
        load(tmp_path)
    assert f"{folder} has no tokenizer.json" in str(caught.value)


@pytest.mark.parametrize("build", [build_tiny_sd3, build_tiny_flux])
def test_a_vae_of_another_family_is_refused(tmp_path, build):
    with pytest.raises(
        ModelUnusable, match=r"has no shift_factor; expected the VAE of a .*Pipeline"
    ):
        load(build(tmp_path, shift_factor=None))


@pytest.mark.parametrize(
    ("build", "channels", "words"),
    [
        (build_tiny_sd3, 9, "takes 9 channels, its VAE makes 4;"),
        (build_tiny_flux, 32, "takes 32 channels, its VAE makes 16;"),
    ],
)
def test_a_transformer_that_takes_more_than_a_latent_is_refused(tmp_path, build, channels, words):
    with pytest.raises(ModelUnusable, match=words):
        load(build(tmp_path, in_channels=channels))
