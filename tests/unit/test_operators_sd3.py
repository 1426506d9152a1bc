"""Stable Diffusion 3 against the unmodified pipeline: a flow model with three text encoders."""

from __future__ import annotations

import pytest
import torch

from conf.errors import ModelUnusable
from operators.engine import ImageFailure, ImageResult
from operators.families.sd3 import T5_TOKENS
from tests.stepwise_rows import (
    ask,
    difference,
    load,
    mixed_requests,
    new_engine,
    reference,
    run,
)
from tests.tiny_model import MAX_TOKENS, SIZE
from tests.tiny_sd3 import WIDTH, build_tiny_sd3
from tests.tiny_sdxl import PROJECTION

FLOW = "flow_match_euler"
EXACT = (
    FLOW,
    "flow_match_heun",
    "flow_match_euler_karras",
    "deis",
    "dpmpp_2m",
    "dpmpp_3s",
    "unipc",
)
"""Without noise of their own: the pipeline draws that without the row's generator."""
NOISY = ("dpmpp_2m_sde", "flow_match_euler_stochastic", "flow_match_lcm", "sa_solver")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build_tiny_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def family(path):
    return load(path)._family


def test_pictures_are_those_of_diffusers_however_rows_are_mixed(path, family):
    requests = mixed_requests(EXACT)
    expected = reference(path, requests)
    together = run(new_engine(family), requests)
    for request in requests:
        made = together[request.row_id]
        assert isinstance(made, ImageResult), made
        assert difference(made.pixels, expected[request.row_id]) <= 1, request
        assert made.pixels.std() > 20


def test_a_row_alone_is_the_row_in_company(family):
    samplers = enumerate(EXACT + NOISY)
    rows = [ask(n, sampler=sampler, steps=3 + n % 4) for n, sampler in samplers]
    together = run(new_engine(family, max_batch=16), rows)
    for row in rows:
        alone = run(new_engine(family), [row])[row.row_id]
        assert difference(alone.pixels, together[row.row_id].pixels) <= 1


def test_different_rows_make_different_pictures(family):
    base = {"prompt": "a fox", "negative_prompt": "a", "seed": 0, "sampler": FLOW}
    others = [{"seed": 9}, {"prompt": "a dog"}, {"negative_prompt": "b"}, {"steps": 7}]
    rows = [ask(n, **(base | other)) for n, other in enumerate([{}, *others])]
    made = run(new_engine(family), rows)
    assert all(difference(made[0].pixels, made[n + 1].pixels) > 3 for n in range(len(others)))


@pytest.mark.parametrize("stage", ["predict", "decode", "embed"])
def test_out_of_memory_loses_nothing(family, monkeypatch, stage):
    rows = [ask(n, sampler=FLOW, prompt=f"text {n}") for n in range(4)]
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


def test_a_text_is_what_clip_and_t5_see(family):
    with torch.inference_mode():
        made = family.embed(["a fox", None])
    assert made["embeddings"].shape == (2, MAX_TOKENS + T5_TOKENS, WIDTH)
    assert made["pooled"].shape == (2, 2 * PROJECTION)
    # what CLIP is narrower than T5 is zeros
    assert not made["embeddings"][:, :MAX_TOKENS, 40:].any()
    assert made["embeddings"][:, MAX_TOKENS:, 40:].all()


def test_only_what_no_encoder_sees_counts_as_truncated(family):
    assert family.count_truncated("x" * (MAX_TOKENS + 5)) == 0
    # the word's start, and the text's end
    assert family.count_truncated("x" * (T5_TOKENS + 5)) == 7


def test_a_sampler_of_noise_models_and_an_odd_size_cost_their_rows_only(family):
    rows = [ask(0, sampler=FLOW), ask(1, sampler="ddim"), ask(2, sampler=FLOW, width=SIZE + 2)]
    made = run(new_engine(family), rows)
    assert isinstance(made[0], ImageResult)
    assert isinstance(made[1], ImageFailure)
    assert (made[1].reason, made[2].reason) == ("sampler_unfit", "bad_size")
    assert "multiples of 4 pixels" in made[2].message


def test_a_tokenizer_that_cannot_be_read_here_says_what_to_install(tmp_path):
    path = build_tiny_sd3(tmp_path)
    (path / "tokenizer_3" / "tokenizer.json").rename(path / "tokenizer_3" / "spiece.model")
    with pytest.raises(ModelUnusable, match="pip install sentencepiece"):
        load(path)
