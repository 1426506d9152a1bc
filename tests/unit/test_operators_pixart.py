"""What PixArt-Sigma does beside the other families, against the unmodified pipeline."""

from __future__ import annotations

import sys

import pytest
import torch

from conf.errors import ModelUnusable
from operators.engine import ImageFailure, ImageResult
from operators.families.pixart_sigma import MAX_TOKENS
from tests.stepwise_rows import ask, difference, load, reference, run
from tests.tiny_model import SIZE
from tests.tiny_pixart import build_tiny_pixart


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build_tiny_pixart(tmp_path_factory.mktemp("pixart"))


@pytest.fixture
def engine(path):
    return load(path)


def test_a_text_carries_the_mask_of_its_own_tokens(engine):
    with torch.inference_mode():
        made = engine._family.embed(["fox", None])
    assert made["embeddings"].shape == (2, MAX_TOKENS, 16)
    # the word's start, its letters, and the end of the text
    assert made["mask"].sum(dim=1).tolist() == [5, 1]


def test_tokens_behind_the_mask_do_not_reach_the_denoiser(engine):
    latents = torch.randn(1, 4, SIZE // 2, SIZE // 2)
    timesteps = torch.full((1,), 500.0)
    with torch.inference_mode():
        made = dict(engine._family.embed(["fox"]))
        expected = engine._family.predict(latents, timesteps, made, (SIZE, SIZE))
        made["embeddings"][:, 5:] = 7.0
        hidden = engine._family.predict(latents, timesteps, made, (SIZE, SIZE))
        made["embeddings"][:, :5] = 7.0
        seen = engine._family.predict(latents, timesteps, made, (SIZE, SIZE))
    assert torch.allclose(hidden, expected, atol=1e-5)
    assert not torch.allclose(seen, expected, atol=1e-2)


def test_capitals_and_spaces_around_a_prompt_do_not_matter(path, engine):
    rows = [ask(0, prompt="  A Fox "), ask(1, prompt="a fox", seed=0), ask(2, height=2 * SIZE)]
    expected = reference(path, rows)
    made = run(engine, rows)
    assert difference(made[0].pixels, made[1].pixels) <= 1
    assert all(difference(made[n].pixels, expected[n]) <= 1 for n in made)


def test_a_size_that_the_patches_do_not_fill_costs_its_row_only(engine):
    made = run(engine, [ask(0), ask(1, width=SIZE + 2), ask(2, height=SIZE + 4)])
    assert isinstance(made[1], ImageFailure)
    assert (made[1].stage, made[1].reason) == ("denoise", "bad_size")
    assert f"{SIZE + 2}x{SIZE}; this model makes multiples of 4 pixels" in made[1].message
    assert isinstance(made[0], ImageResult)
    assert isinstance(made[2], ImageResult)


def test_a_transformer_that_is_told_resolutions_is_refused(tmp_path):
    path = build_tiny_pixart(tmp_path, additional_conditions=True)
    with pytest.raises(ModelUnusable, match="use_additional_conditions, as PixArt-Alpha has"):
        load(path)


def test_a_tokenizer_that_cannot_be_read_here_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    path = build_tiny_pixart(tmp_path)
    (path / "tokenizer" / "tokenizer.json").rename(path / "tokenizer" / "spiece.model")
    with pytest.raises(ModelUnusable, match="pip install sentencepiece") as caught:
        load(path)
    assert f"{path / 'tokenizer'} has no tokenizer.json" in str(caught.value)


def test_a_transformer_saved_under_its_old_class_name_is_the_same_model(tmp_path, path, engine):
    old = build_tiny_pixart(tmp_path)
    for file in (old / "model_index.json", old / "transformer" / "config.json"):
        text = file.read_text()
        assert "PixArtTransformer2DModel" in text
        file.write_text(text.replace("PixArtTransformer2DModel", "Transformer2DModel"))
    made = run(load(old), [ask(0)])
    assert difference(made[0].pixels, run(engine, [ask(0)])[0].pixels) <= 1
