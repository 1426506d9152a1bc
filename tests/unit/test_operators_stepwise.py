"""The stepwise engine against the unmodified pipeline of each family, and when things go wrong."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from conf.errors import ModelUnusable
from operators.engine import ImageFailure, ImageResult
from tests.pictured_samplers import SAMPLERS
from tests.stepwise_rows import (
    TINY_MODELS,
    ask,
    difference,
    drain,
    load,
    mixed_requests,
    new_engine,
    reference,
    run,
)
from tests.tiny_model import SIZE, build_tiny_stable_diffusion


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """A tiny model on a shared machine waits for its threads, not for its arithmetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=TINY_MODELS)
def tiny_model(request):
    """Every test runs with each family."""
    return TINY_MODELS[request.param]


@pytest.fixture(scope="module")
def model_path(tiny_model, tmp_path_factory):
    build, _ = tiny_model
    return build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def v_prediction_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("v_prediction")
    return build_tiny_stable_diffusion(path, prediction_type="v_prediction")


@pytest.fixture(scope="module")
def family(model_path):
    """The loaded components; engines are cheap, loading is not."""
    return load(model_path)._family


@pytest.fixture
def engine(family):
    return new_engine(family)


def test_pictures_are_those_of_diffusers_however_rows_are_mixed(model_path, family):
    check_against_diffusers(model_path, new_engine(family))


def test_pictures_are_those_of_diffusers_with_v_prediction(v_prediction_path):
    check_against_diffusers(v_prediction_path, load(v_prediction_path))


def check_against_diffusers(path, engine):
    requests = mixed_requests()
    expected = reference(path, requests)
    together = run(engine, requests)
    for request in requests:
        made = together[request.row_id]
        assert isinstance(made, ImageResult), made
        assert made.pixels.dtype == np.uint8
        assert made.pixels.shape == (request.height, request.width, 3)
        assert difference(made.pixels, expected[request.row_id]) <= 1, request
        assert made.pixels.std() > 20


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_row_alone_is_the_row_in_company(family, sampler):
    row = ask(50, sampler=sampler, steps=5)
    company = [ask(n, sampler=SAMPLERS[n], steps=3 + n) for n in range(6)]
    alone = run(new_engine(family), [row])[50]
    mixed = run(new_engine(family), [*company, row])[50]
    assert difference(alone.pixels, mixed.pixels) <= 1


def test_different_rows_make_different_pictures(engine):
    base = ask(0, prompt="a fox", negative_prompt="a")
    others = [
        {"seed": 9},
        {"prompt": "a dog"},
        {"negative_prompt": "b"},
        {"steps": 7},
        {"guidance_scale": 1.0},
        {"sampler": "lcm"},
    ]
    requests = [base, *(dataclasses.replace(base, row_id=n + 1, **o) for n, o in enumerate(others))]
    made = run(engine, requests)
    assert all(difference(made[0].pixels, made[n + 1].pixels) > 3 for n in range(len(others)))


def test_truncated_tokens_are_counted(tiny_model, engine):
    _, limit = tiny_model
    made = run(engine, [ask(0, prompt="abc"), ask(1, prompt="x" * (limit + 3))])
    assert made[0].truncated_tokens == 0
    # the text, and its start and end
    assert made[1].truncated_tokens == 5


def test_equal_texts_are_encoded_once(engine, monkeypatch):
    encoded = []
    original = engine._family.embed
    monkeypatch.setattr(engine._family, "embed", lambda ts: encoded.append(ts) or original(ts))
    run(engine, [ask(n, prompt="same", negative_prompt="bad") for n in range(9)])
    assert sorted(text for texts in encoded for text in texts) == ["bad", "same"]


def test_texts_of_waiting_rows_share_the_encoding_of_entering_ones(engine, monkeypatch):
    batches = []
    original = engine._family.embed
    monkeypatch.setattr(engine._family, "embed", lambda ts: batches.append(len(ts)) or original(ts))
    run(engine, [ask(n, prompt=f"text {n}", guidance_scale=0.0) for n in range(8)])
    assert batches == [4, 4]


def test_rows_without_guidance_add_no_second_pass(engine, monkeypatch):
    sizes = []
    original = engine._family.predict

    def predict(latents, timesteps, conditioning, size):
        sizes.append(len(latents))
        assert len(timesteps) == len(latents)
        assert {len(tensor) for tensor in conditioning.values()} == {len(latents)}
        return original(latents, timesteps, conditioning, size)

    monkeypatch.setattr(engine._family, "predict", predict)
    run(engine, [ask(n, steps=1, guidance_scale=g) for n, g in enumerate((0.0, 1.0, 4.0, 1.5))])
    assert sizes == [6]


def test_device_time_is_shared_to_the_nanosecond(engine):
    requests = [*mixed_requests(), ask(90, sampler="lcm", steps=999)]
    outcomes = run(engine, requests).values()
    assert len(outcomes) == len(requests)
    assert sum(outcome.device_ns for outcome in outcomes) == engine.stats.busy_ns
    assert all(outcome.device_ns > 0 for outcome in outcomes)
    assert all(o.started_at_ns <= o.finished_at_ns for o in outcomes if isinstance(o, ImageResult))


def test_fill_counts_occupied_slots(engine):
    run(engine, [ask(n, steps=3) for n in range(6)])
    stats = engine.stats
    assert (stats.ticks, stats.occupied, stats.offered) == (6, 18, 24)
    assert (stats.active, stats.waiting) == (0, 0)


def failing_once(function, error, *, when):
    calls = []

    def wrapped(*arguments):
        calls.append(len(arguments[0]))
        if when(len(arguments[0]), calls):
            raise error
        return function(*arguments)

    return wrapped, calls


@pytest.mark.parametrize("stage", ["predict", "decode", "embed"])
def test_out_of_memory_loses_nothing(family, monkeypatch, stage):
    requests = [ask(n, sampler=("euler_ancestral", "unipc", "lcm", "pndm")[n]) for n in range(4)]
    requests = [dataclasses.replace(r, prompt=f"text {r.row_id}") for r in requests]
    expected = run(new_engine(family), requests)
    wrapped, calls = failing_once(
        getattr(family, stage),
        torch.OutOfMemoryError("CUDA out of memory"),
        when=lambda size, calls: len(calls) == 1,
    )
    monkeypatch.setattr(family, stage, wrapped)
    engine = new_engine(family)
    made = run(engine, requests)
    assert calls[0] > calls[1] == calls[0] // 2 if calls[0] > 1 else True
    for row_id, outcome in made.items():
        assert difference(outcome.pixels, expected[row_id].pixels) <= 1
    assert sum(o.device_ns for o in made.values()) == engine.stats.busy_ns


def test_out_of_memory_lowers_the_cap_of_this_shape_for_good(family, monkeypatch):
    wrapped, calls = failing_once(
        family.predict,
        torch.OutOfMemoryError("CUDA out of memory"),
        when=lambda size, calls: size > 3,
    )
    monkeypatch.setattr(family, "predict", wrapped)
    made = run(new_engine(family), [ask(n, steps=3) for n in range(4)])
    assert all(isinstance(outcome, ImageResult) for outcome in made.values())
    assert calls[:3] == [8, 4, 2]
    assert set(calls[3:]) == {2}


def test_out_of_memory_with_one_row_fails_that_row_only(family, monkeypatch):
    original = family.predict

    def predict(latents, timesteps, conditioning, size):
        if latents.shape[-1] > SIZE // 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(latents, timesteps, conditioning, size)

    monkeypatch.setattr(family, "predict", predict)
    engine = new_engine(family)
    made = run(engine, [ask(0), ask(1, width=2 * SIZE), ask(2)])
    assert isinstance(made[1], ImageFailure)
    assert (made[1].stage, made[1].reason) == ("denoise", "out_of_memory")
    assert "smaller size" in made[1].message
    assert isinstance(made[0], ImageResult)
    assert isinstance(made[2], ImageResult)
    assert sum(o.device_ns for o in made.values()) == engine.stats.busy_ns


def test_a_broken_device_is_not_blamed_on_rows(family, monkeypatch):
    def predict(latents, timesteps, conditioning, size):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(family, "predict", predict)
    engine = new_engine(family)
    engine.admit([ask(0)])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.tick()


def test_a_row_of_nan_spares_its_neighbours_and_the_next_row_in_its_slot(family):
    plain = [ask(n, sampler=("dpmpp_2m", "unipc")[n % 2], steps=6) for n in range(1, 5)]
    expected = run(new_engine(family, max_batch=2), plain)
    engine = new_engine(family, max_batch=2)
    made = run(engine, [ask(0, guidance_scale=1e38, steps=999), *plain])
    # it leaves when it is lost, not after all its steps
    assert engine.stats.ticks < 50
    assert isinstance(made[0], ImageFailure)
    assert (made[0].stage, made[0].reason) == ("check", "nan_image")
    for row_id, outcome in expected.items():
        assert difference(made[row_id].pixels, outcome.pixels) <= 1


def test_a_decoded_image_of_nan_is_refused_and_a_black_one_is_not(family, monkeypatch):
    def decode(latents):
        images = torch.full((len(latents), 3, SIZE, SIZE), -1.0)
        if len(latents) > 1:
            images[0, 0, 0, 0] = torch.nan
        return images

    monkeypatch.setattr(family, "decode", decode)
    made = run(new_engine(family), [ask(0), ask(1)])
    assert (made[0].stage, made[0].reason) == ("check", "nan_image")
    assert not made[1].pixels.any()


def test_a_sampler_that_cannot_do_the_steps_fails_its_row_only(engine):
    made = run(engine, [ask(0, sampler="lcm", steps=999), ask(1)])
    assert (made[0].stage, made[0].reason) == ("denoise", "sampler_failed")
    assert isinstance(made[1], ImageResult)


def test_a_text_that_cannot_be_tokenised_fails_its_row_only(engine):
    made = run(engine, [ask(0, prompt="half \ud83e pair"), ask(1), ask(2)])
    assert (made[0].stage, made[0].reason) == ("condition", "condition_failed")
    assert isinstance(made[1], ImageResult)
    assert isinstance(made[2], ImageResult)


def test_discarded_rows_free_their_slots_and_never_come_back(engine):
    requests = [ask(n, steps=5, sampler="dpmpp_2m") for n in range(10)]
    engine.admit(requests[:8])
    assert engine.tick() == []
    engine.admit(requests[8:])
    assert engine.discard(lambda request: request.row_id % 2 == 0) == 5
    made = drain(engine)
    assert sorted(made) == [1, 3, 5, 7, 9]
    assert sum(o.device_ns for o in made.values()) < engine.stats.busy_ns
    alone = run(new_engine(engine._family), [requests[9]])
    assert difference(made[9].pixels, alone[9].pixels) <= 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_stay_near(model_path, family, precision):
    engine = load(model_path, precision=precision)
    assert engine.info.precision == precision
    made = run(engine, [ask(0, steps=3), ask(1, steps=4, sampler="euler")])
    exact = run(new_engine(family), [ask(0, steps=3), ask(1, steps=4, sampler="euler")])
    for row_id, outcome in made.items():
        gap = np.abs(outcome.pixels.astype(int) - exact[row_id].pixels.astype(int))
        assert gap.mean() < 10


def test_the_engine_says_what_it_is(model_path):
    info = load(model_path, max_batch=None).info
    assert (info.name, info.model, info.precision, info.simulated) == (
        "stepwise",
        "tiny",
        "float32",
        False,
    )
    assert info.max_batch == (64 if torch.cuda.is_available() else 32)
    assert len(info.model_revision) == 16


def test_a_batch_size_that_was_found_is_used_by_the_next_engine(model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = [ask(n, steps=9) for n in range(80)]
    run(load(model_path, max_batch=None), rows)
    found = json.loads((tmp_path / "imagemill" / "batch_sizes.json").read_text())["numbers"]
    (slots,) = found.values()
    engine = load(model_path, max_batch=None)
    engine.admit(rows)
    engine.tick()
    assert (engine.stats.active, engine.stats.offered) == (slots, slots)


def test_a_batch_size_that_does_not_fit_any_more_is_halved_for_the_next_engine_too(
    model_path, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load(model_path, max_batch=None)
    first._sizes._found((SIZE, SIZE), 8)
    engine = load(model_path, max_batch=None)
    predict = engine._family.predict

    def small_memory(latents, *given):
        if len(latents) > 4:
            raise torch.OutOfMemoryError("4 passes and no more")
        return predict(latents, *given)

    monkeypatch.setattr(engine._family, "predict", small_memory)
    made = run(engine, [ask(n, guidance_scale=1.0, steps=3) for n in range(16)])
    assert all(isinstance(outcome, ImageResult) for outcome in made.values())
    after = load(model_path, max_batch=None)
    assert engine._sizes.slots((SIZE, SIZE)) == after._sizes.slots((SIZE, SIZE)) == 4


def test_weights_that_cannot_be_loaded_name_the_folder(tmp_path):
    path = build_tiny_stable_diffusion(tmp_path / "model")
    weights = next((path / "unet").glob("*.safetensors"))
    weights.write_bytes(b"not weights")
    with pytest.raises(ModelUnusable, match="diffusers cannot load the model") as caught:
        load(path)
    assert str(path) in str(caught.value)
