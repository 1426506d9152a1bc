"""The pipeline engine: what diffusers makes, in groups, and each row's fault its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import conf
from conf.errors import ConfigError, ModelUnusable, NoImages
from operators.engine import ImageFailure, ImageResult
from operators.engines.pipeline import PipelineEngine, PipelineModel
from operators.model_files import describe_model
from operators.pipeline_call import check_defaults, pipeline_call
from operators.request import RowDefaults
from tests.stepwise_rows import ask, difference, drain, load, mixed_requests, reference, run
from tests.tiny_model import MAX_TOKENS, SIZE, build_tiny_stable_diffusion
from tests.tiny_others import build_tiny_latent_diffusion, build_tiny_pixart_alpha
from tests.tiny_sdxl import build_tiny_sdxl

BUILD = {
    "sd": build_tiny_stable_diffusion,
    "sdxl": build_tiny_sdxl,
    "alpha": build_tiny_pixart_alpha,
    "ldm": build_tiny_latent_diffusion,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = BUILD[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(scope="module")
def engine_of(folder_of):
    """Empty engines over one loaded model each."""
    loaded = {}

    def engine(name):
        if name not in loaded:
            loaded[name] = load(folder_of(name), engine="pipeline")
        return PipelineEngine(loaded[name]._model, loaded[name].info)

    return engine


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_pictures_are_those_of_the_pipeline_alone(folder_of, engine_of, name):
    requests = mixed_requests()[:12]
    made = run(engine_of(name), requests)
    expected = reference(folder_of(name), requests)
    for request in requests:
        outcome = made[request.row_id]
        assert isinstance(outcome, ImageResult), outcome
        assert difference(outcome.pixels, expected[request.row_id]) <= 1


def test_both_engines_make_the_same_pictures(folder_of, engine_of):
    requests = mixed_requests()[:12]
    mine, theirs = run(engine_of("sd"), requests), run(load(folder_of("sd")), requests)
    for number, outcome in mine.items():
        assert difference(outcome.pixels, theirs[number].pixels) <= 1
        assert outcome.truncated_tokens == theirs[number].truncated_tokens


def test_equal_rows_share_a_call(engine_of):
    engine = engine_of("sd")
    rows = [ask(n) for n in range(4)] + [ask(4, steps=5), ask(5, steps=5), ask(6, steps=6)]
    engine.admit(rows)
    assert [len(engine.tick()) for _ in range(3)] == [4, 2, 1]
    assert (engine.stats.occupied, engine.stats.offered, engine.stats.ticks) == (7, 12, 3)


def test_empty_places_have_a_reason(engine_of):
    engine = engine_of("sd")
    engine.admit([ask(0, steps=2), ask(1, steps=3)])
    engine.tick(more_to_come=True)
    assert (engine.stats.other_shapes, engine.stats.starved) == (3, 0)
    engine.tick(more_to_come=True)
    assert (engine.stats.other_shapes, engine.stats.starved) == (3, 3)


def test_a_row_with_a_negative_prompt_does_not_change_its_neighbours(engine_of):
    """To SDXL an empty negative prompt is another thing than none."""
    rows = [ask(0), ask(1), ask(2, negative_prompt="ugly"), ask(3, negative_prompt="blue")]
    together = run(engine_of("sdxl"), rows)
    for row in rows:
        (alone,) = run(engine_of("sdxl"), [row]).values()
        assert difference(alone.pixels, together[row.row_id].pixels) <= 1


@pytest.mark.parametrize("name", ["ldm", "alpha"])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddpm", "default"])
def test_noise_is_the_rows_own_also_where_the_pipeline_draws_it_anywhere(engine_of, name, sampler):
    row = ask(7, sampler=sampler)
    (alone,) = run(engine_of(name), [row]).values()
    mixed = run(engine_of(name), [*(ask(n, sampler=sampler) for n in range(3)), row])
    assert difference(alone.pixels, mixed[7].pixels) <= 1


def test_default_is_the_models_own_scheduler(folder_of, engine_of):
    named = run(engine_of("sd"), [ask(0, sampler="ddim")])
    own = run(engine_of("sd"), [ask(0, sampler="default")])
    stepwise = run(load(folder_of("sd")), [ask(0, sampler="default")])
    assert difference(named[0].pixels, own[0].pixels) == 0
    assert difference(named[0].pixels, stepwise[0].pixels) <= 1


def failure(outcome):
    assert isinstance(outcome, ImageFailure), outcome
    return outcome


def test_a_negative_prompt_that_the_pipeline_does_not_take_costs_its_row(engine_of):
    made = run(engine_of("ldm"), [ask(0, negative_prompt="ugly"), ask(1)])
    assert isinstance(made[1], ImageResult)
    found = failure(made[0])
    assert (found.stage, found.reason) == ("denoise", "not_supported")
    assert "negative_prompt is 'ugly', but LDMTextToImagePipeline takes no" in found.message


def test_a_sampler_for_another_kind_of_model_costs_its_row(engine_of):
    made = run(engine_of("sd"), [ask(0, sampler="flow_match_euler"), ask(1)])
    assert isinstance(made[1], ImageResult)
    found = failure(made[0])
    assert found.reason == "sampler_unfit"
    assert "or for default, the model's own" in found.message


def defaults(**options):
    given = {"negative_prompt": "", "guidance_scale": 4.0, "sampler": "ddim"}
    return RowDefaults(
        width=SIZE,
        height=SIZE,
        steps=5,
        num_images=1,
        job_seed=0,
        max_pixels=10**6,
        **(given | options),
    )


def test_what_the_configuration_asks_in_vain_of_every_row_is_refused(folder_of):
    files = describe_model(str(folder_of("ldm")))
    check_defaults(files, defaults())
    with pytest.raises(ConfigError, match=r"negative_prompt is 'ugly' where .*: set sampling\.neg"):
        check_defaults(files, defaults(negative_prompt="ugly"))


def test_a_pipeline_says_what_it_cannot_do(folder_of):
    call = pipeline_call(describe_model(str(folder_of("sd"))))
    plain = dataclasses.replace(
        call, takes=call.takes - {"guidance_scale", "height"}, has_scheduler=False
    )
    assert plain.refusal(defaults())[0] == "guidance_scale"
    assert plain.refusal(defaults(guidance_scale=1.0))[0] == "sampler"
    assert plain.refusal(defaults(guidance_scale=0.0, sampler="default")) is None
    given = plain.arguments([ask(0)])
    assert not {"guidance_scale", "height"} & set(given)
    assert given["width"] == SIZE


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("TomorrowsPipeline", "which diffusers .* does not have. Install a newer diffusers"),
        ("CogVideoXPipeline", "it makes videos. Set model.path to a model that makes images"),
        ("WanPipeline", "which makes videos; expected a pipeline that makes images from text"),
        ("LattePipeline", "which makes videos"),
        ("AudioLDMPipeline", "which makes sound"),
        ("StableAudioPipeline", "which makes sound"),
        ("FluxControlPipeline", "which also needs control_image"),
        ("FluxFillPipeline", "which also needs mask_image"),
        ("VQDiffusionPipeline", "which takes no height"),
        ("IFSuperResolutionPipeline", "it starts from an image"),
        ("DDPMPipeline", "which takes no prompt; expected a pipeline that makes images from text"),
        ("WuerstchenDecoderPipeline", "which also needs image_embeddings"),
        ("KandinskyV22Pipeline", "takes no prompt"),
        ("StableUnCLIPImg2ImgPipeline", "it starts from an image, as refiners do"),
        ("PaintByExamplePipeline", "takes no prompt"),
        ("MarigoldDepthPipeline", "takes no prompt"),
    ],
)
def test_a_class_that_makes_no_images_from_text_is_refused(tmp_path, name, part):
    folder = build_tiny_stable_diffusion(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    with pytest.raises(ModelUnusable, match=part):
        load(folder, engine="pipeline")


def test_finding_out_how_a_pipeline_is_called_says_nothing_on_stderr(folder_of):
    """Diffusers imports parts that nobody loads; transformers misses torchvision for some."""
    code = (
        "import sys; from operators.model_files import describe_model;"
        "from operators.pipeline_call import pipeline_call;"
        "pipeline_call(describe_model(sys.argv[1]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder_of("sd"))],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(conf.__path__[0]).parent,
    )
    assert ended.stderr == ""


def test_loading_says_nothing_of_what_diffusers_advises(folder_of):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    library = logging.getLogger("diffusers")
    library.addHandler(handler)
    try:
        load(folder_of("sd"), engine="pipeline", precision="float16")
    finally:
        library.removeHandler(handler)
    assert said == []


class Broken:
    """Stands between an engine and its model, to fail as a device may."""

    def __init__(self, model, make):
        self._model = model
        self._make = make

    def __getattr__(self, name):
        return getattr(self._model, name)

    def make(self, requests):
        return self._make(self._model, requests)


def broken(engine, make):
    return PipelineEngine(Broken(engine._model, make), engine.info)


def test_out_of_memory_halves_the_group_and_loses_nothing(engine_of):
    sizes = []

    def small_memory(model, requests):
        sizes.append(len(requests))
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model.make(requests)

    engine = broken(engine_of("sd"), small_memory)
    made = run(engine, [ask(n) for n in range(8)])
    assert all(isinstance(outcome, ImageResult) for outcome in made.values())
    assert sizes == [4, 2, 2, 2, 2]
    assert sum(outcome.device_ns for outcome in made.values()) == engine.stats.busy_ns


def test_an_image_that_does_not_fit_alone_costs_its_row(engine_of):
    def no_memory(model, requests):
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = run(broken(engine_of("sd"), no_memory), [ask(0)])
    assert failure(made[0]).reason == "out_of_memory"


def test_a_row_that_breaks_the_pipeline_costs_itself_alone(engine_of):
    def poisoned(model, requests):
        if any(request.row_id == 2 for request in requests):
            raise ValueError("no such word")
        return model.make(requests)

    engine = broken(engine_of("sd"), poisoned)
    made = run(engine, [ask(n) for n in range(4)])
    assert [number for number, one in made.items() if isinstance(one, ImageFailure)] == [2]
    assert "ValueError: no such word" in made[2].message
    assert sum(outcome.device_ns for outcome in made.values()) == engine.stats.busy_ns


def test_a_model_that_answers_without_images_ends_the_engine_not_the_rows(engine_of):
    model = engine_of("sd")._model
    calls = []

    class MakesFrames:
        scheduler = model._pipeline.scheduler

        def __init__(self):
            self.components = {}

        def __call__(self, **given):
            calls.append(given)
            return SimpleNamespace(frames=[])

    wrong = PipelineModel(MakesFrames(), model.call, device=model.device)
    engine = PipelineEngine(wrong, engine_of("sd").info)
    engine.admit([ask(0), ask(1)])
    with pytest.raises(NoImages, match="answers with a SimpleNamespace that holds no images"):
        drain(engine)
    assert len(calls) == 1


def test_a_broken_device_ends_the_engine(engine_of):
    def lost(model, requests):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine = broken(engine_of("sd"), lost)
    engine.admit([ask(0), ask(1)])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        drain(engine)


def test_an_image_that_is_no_number_costs_its_row(engine_of):
    engine = engine_of("sd")
    weight = engine._model._pipeline.vae.decoder.conv_out.weight
    rows = [ask(0), ask(1)]
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        made = run(engine, rows)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert {failure(made[n]).reason for n in (0, 1)} == {"nan_image"}
    assert isinstance(run(engine_of("sd"), [ask(0)])[0], ImageResult)


def test_a_picture_of_another_size_costs_its_row_and_no_more_calls(engine_of):
    calls = []

    def always_small(model, requests):
        calls.append(len(requests))
        return [np.zeros((8, 16, 3), dtype=np.uint8) for _ in requests]

    engine = broken(engine_of("sd"), always_small)
    first = failure(run(engine, [ask(0)])[0])
    assert (first.stage, first.reason) == ("check", "bad_size")
    assert f"asks for {SIZE}x{SIZE} (width x height), of which the pipeline makes 16x8" in (
        first.message
    )
    assert failure(run(engine, [ask(1)])[1]).message == first.message
    assert calls == [1]


def test_truncated_tokens_are_counted_where_the_limit_is_known(engine_of):
    long = "a fox " * 200
    words = 400
    expected = {"sd": words + 2 - MAX_TOKENS, "ldm": 0, "alpha": None}
    for name, least in expected.items():
        found = run(engine_of(name), [ask(0, prompt=long, steps=2)])[0].truncated_tokens
        assert found > 0
        if least:
            assert found >= least
        short = run(engine_of(name), [ask(1, prompt="a fox", steps=2)])[1]
        assert short.truncated_tokens == 0


def test_no_request_is_overdue_since_none_stays_inside(engine_of):
    engine = engine_of("sd")
    engine.admit([ask(n, steps=n + 1) for n in range(3)])
    engine.tick()
    assert engine.overdue(0.0) == []
