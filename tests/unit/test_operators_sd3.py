"""What Stable Diffusion 3 does beside the other flow models, against the unmodified pipeline."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from operators.engine import ImageFailure, ImageResult
from operators.families.sd3 import T5_TOKENS
from tests.stepwise_rows import ask, difference, load, reference, run
from tests.tiny_flux import DYNAMIC_SHIFT
from tests.tiny_model import MAX_TOKENS, SIZE
from tests.tiny_sd3 import MOST_PATCHES, WIDTH, build_tiny_sd3
from tests.tiny_sdxl import PROJECTION

FLOW = "flow_match_euler"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build_tiny_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture
def engine(path):
    return load(path)


def leave_out_t5(path, *names):
    file = path / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps(index | {name: [None, None] for name in names}))


def test_a_text_is_what_clip_and_t5_see(engine):
    with torch.inference_mode():
        made = engine._family.embed(["a fox", None])
    assert made["embeddings"].shape == (2, MAX_TOKENS + T5_TOKENS, WIDTH)
    assert made["pooled"].shape == (2, 2 * PROJECTION)
    # what CLIP is narrower than T5 is zeros
    assert not made["embeddings"][:, :MAX_TOKENS, 40:].any()
    assert made["embeddings"][:, MAX_TOKENS:, 40:].all()


def test_only_what_no_encoder_sees_counts_as_truncated(engine):
    prompts = ("x" * (MAX_TOKENS + 5), "x" * (T5_TOKENS + 5))
    made = run(engine, [ask(n, sampler=FLOW, prompt=text) for n, text in enumerate(prompts)])
    # the word's start, and the text's end
    assert [made[n].truncated_tokens for n in range(2)] == [0, 7]


def test_negative_prompts_guide(path, engine):
    rows = [
        ask(n, seed=0, prompt="a fox", sampler=FLOW, negative_prompt=text)
        for n, text in enumerate(("", "ugly"))
    ]
    expected = reference(path, rows)
    made = run(engine, rows)
    assert all(difference(made[n].pixels, expected[n]) <= 1 for n in made)
    assert difference(made[0].pixels, made[1].pixels) > 3


@pytest.mark.parametrize("left_out", [("text_encoder_3", "tokenizer_3"), ("text_encoder_3",)])
def test_a_model_without_t5_is_run_without_it(tmp_path, engine, left_out):
    path = build_tiny_sd3(tmp_path)
    leave_out_t5(path, *left_out)
    rows = [ask(0, sampler=FLOW), ask(1, sampler=FLOW, guidance_scale=1.0)]
    expected = reference(path, rows, text_encoder_3=None, tokenizer_3=None)
    without = load(path)
    made = run(without, rows)
    assert all(difference(made[n].pixels, expected[n]) <= 1 for n in made)
    assert difference(made[0].pixels, run(engine, rows)[0].pixels) > 3
    assert without._family.count_truncated("x" * (MAX_TOKENS + 5)) == 7


def test_words_of_several_vectors_are_read_as_the_pipeline_reads_them(tmp_path):
    path = build_tiny_sd3(tmp_path)
    family = load(path)._family
    tokenizer = family._pipeline.tokenizer
    tokenizer.add_tokens(["<cat>", "<cat>_1"])
    family._pipeline.text_encoder.resize_token_embeddings(len(tokenizer))
    family._pipeline.tokenizer.save_pretrained(path / "tokenizer")
    family._pipeline.text_encoder.save_pretrained(path / "text_encoder")
    rows = [ask(0, sampler=FLOW, prompt="a <cat> here")]
    made = run(load(path), rows)
    assert isinstance(made[0], ImageResult), made[0]
    assert difference(made[0].pixels, reference(path, rows)[0]) <= 1


def test_a_size_beyond_the_position_embedding_costs_its_row_only(engine):
    most = MOST_PATCHES * 4
    rows = [ask(0, sampler=FLOW, steps=2, height=most), ask(1, sampler=FLOW, height=most + 4)]
    made = run(engine, rows)
    assert isinstance(made[0], ImageResult), made[0]
    assert isinstance(made[1], ImageFailure)
    assert (made[1].stage, made[1].reason) == ("denoise", "bad_size")
    assert (
        f"the size is {SIZE}x{most + 4}; this model makes at most {most} pixels" in made[1].message
    )


def test_noise_levels_are_shifted_by_the_size_where_the_scheduler_says_so(tmp_path, engine):
    assert engine._family.noise_levels(SIZE, SIZE, 5).mu is None
    family = load(build_tiny_sd3(tmp_path, scheduler=DYNAMIC_SHIFT))._family
    for height, width in ((SIZE, SIZE), (2 * SIZE, 3 * SIZE)):
        found = family.noise_levels(height, width, 5)
        expected = calculate_shift(height * width // 16, 16, 128, 0.5, 1.4)
        assert (found.mu, found.sigmas) == (pytest.approx(expected), None)


def test_a_scheduler_that_does_not_say_how_far_shifts_as_far_as_the_pipeline(engine):
    engine._family._pipeline.scheduler = UniPCMultistepScheduler(
        use_flow_sigmas=True, use_dynamic_shifting=True, prediction_type="flow_prediction"
    )
    found = engine._family.noise_levels(64 * SIZE, SIZE, 5)
    assert found.mu == pytest.approx(calculate_shift(64 * 64, max_shift=1.16))
