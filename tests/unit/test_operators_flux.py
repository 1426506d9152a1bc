"""What Flux does beside the other flow models, against the unmodified pipeline."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch

from operators import sampler_table
from operators.engine import ImageResult
from operators.families.flux import T5_TOKENS
from tests.stepwise_rows import ask, difference, load, reference, run
from tests.tiny_flux import POOLED, WIDTH, build_tiny_flux
from tests.tiny_model import MAX_TOKENS, SIZE

FLOW = "flow_match_euler"
SCALES = (0.0, 1.0, 3.5, 7.0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def schnell_path(tmp_path_factory):
    options = {"guidance_embeds": False, "scheduler": {"shift": 1.0}}
    return build_tiny_flux(tmp_path_factory.mktemp("schnell"), **options)


@pytest.fixture
def engine(path):
    return load(path)


def rows_of_all_scales():
    return [
        ask(n, seed=0, prompt="a fox", sampler=FLOW, guidance_scale=scale)
        for n, scale in enumerate(SCALES)
    ]


def test_rows_of_one_batch_are_told_their_own_guidance(path, engine):
    rows = rows_of_all_scales()
    expected = reference(path, rows)
    made = run(engine, rows)
    assert engine.stats.ticks == rows[0].steps
    for row in rows:
        assert difference(made[row.row_id].pixels, expected[row.row_id]) <= 1
    for n in range(1, len(rows)):
        assert difference(made[n - 1].pixels, made[n].pixels) > 3


def test_a_model_without_guidance_embeddings_makes_the_same_picture_at_every_scale(schnell_path):
    rows = rows_of_all_scales()
    expected = reference(schnell_path, rows[:1])
    made = run(load(schnell_path), rows)
    assert all(difference(made[row.row_id].pixels, expected[0]) <= 1 for row in rows)


def test_guidance_adds_no_second_pass_and_no_weight(engine, monkeypatch):
    sizes, texts = [], []
    family = engine._family
    predict, embed = family.predict, family.embed
    monkeypatch.setattr(
        family,
        "predict",
        lambda latents, *rest: sizes.append(len(latents)) or predict(latents, *rest),
    )
    monkeypatch.setattr(family, "embed", lambda asked: texts.extend(asked) or embed(asked))
    rows = [
        ask(n, sampler=FLOW, steps=2, prompt="a", negative_prompt="b", guidance_scale=scale)
        for n, scale in enumerate((9.0, 0.0))
    ]
    made = run(engine, rows)
    assert (sizes, texts) == ([2, 2], ["a"])
    # they shared all but the first row's text
    assert made[0].device_ns >= made[1].device_ns
    denoised = [outcome.device_ns for outcome in run(engine, rows).values()]
    assert abs(denoised[0] - denoised[1]) <= 10


def test_a_text_is_what_t5_sees_and_the_pooled_one_of_clip(engine):
    with torch.inference_mode():
        made = engine._family.embed(["a fox", "a dog"])
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {
        "embeddings": (2, T5_TOKENS, WIDTH),
        "pooled": (2, POOLED),
    }
    assert not torch.equal(made["pooled"][0], made["pooled"][1])


def test_only_what_no_encoder_sees_counts_as_truncated(engine):
    prompts = ("x" * (MAX_TOKENS + 5), "x" * (T5_TOKENS + 5))
    made = run(engine, [ask(n, sampler=FLOW, prompt=text) for n, text in enumerate(prompts)])
    # the word's start, and the text's end
    assert [made[n].truncated_tokens for n in range(2)] == [0, 7]


def test_noise_levels_follow_the_size_and_the_steps(engine, schnell_path):
    family, schnell = engine._family, load(schnell_path)._family
    small, wide = (family.noise_levels(SIZE, width, 4) for width in (SIZE, 2 * SIZE))
    # from 0.5 at 16 tokens to 1.4 at 128
    assert small.mu == pytest.approx(0.5 + 0.9 * (64 - 16) / 112)
    assert wide.mu == pytest.approx(1.4)
    assert small.sigmas == wide.sigmas == (1.0, 0.75, 0.5, 0.25)
    assert schnell.noise_levels(SIZE, SIZE, 4).mu is None
    assert schnell.noise_levels(SIZE, SIZE, 2).sigmas == (1.0, 0.5)


def test_tables_of_many_sizes_do_not_pile_up(engine, monkeypatch):
    tables = OrderedDict()
    monkeypatch.setattr(sampler_table, "_tables", tables)
    monkeypatch.setattr(sampler_table, "_CACHED_TABLES", 4)
    made = run(engine, [ask(n, sampler=FLOW, steps=1, width=16 + 4 * n) for n in range(6)])
    assert all(isinstance(outcome, ImageResult) for outcome in made.values())
    assert len(tables) == 4


def test_upright_and_lying_pictures_are_those_of_diffusers(path, engine):
    rows = [ask(0, sampler=FLOW, height=2 * SIZE), ask(1, sampler=FLOW, width=2 * SIZE)]
    expected = reference(path, rows)
    made = run(engine, rows)
    for row in rows:
        assert difference(made[row.row_id].pixels, expected[row.row_id]) <= 1
        assert np.ptp(made[row.row_id].pixels) > 100


def test_patches_are_packed_and_numbered_as_the_pipeline_does(engine):
    family, pipeline = engine._family, engine._family._pipeline
    latents = torch.randn(2, 4, 6, 10)
    seen = {}

    def transformer(**inputs):
        seen.update(inputs)
        return (inputs["hidden_states"],)

    transformer.config = pipeline.transformer.config
    family.transformer = transformer
    conditioning = dict.fromkeys(("embeddings", "pooled"), torch.zeros(2, 1))
    told = torch.tensor([1.0, 2.0])
    output = family.predict(
        latents, torch.tensor([500.0, 250.0]), conditioning | {"guidance": told}, (24, 40)
    )
    assert torch.equal(output, latents)
    assert torch.equal(seen["hidden_states"], pipeline._pack_latents(latents, 2, 4, 6, 10))
    ids = pipeline._prepare_latent_image_ids(2, 3, 5, "cpu", torch.float32)
    assert torch.equal(seen["img_ids"], ids)
    assert torch.equal(seen["timestep"], torch.tensor([0.5, 0.25]))
    assert torch.equal(seen["guidance"], told)
