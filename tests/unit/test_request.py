"""Validation of input rows: every reason, and the sentence that tells what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import RowRejected
from operators.request import MAX_SEED, RowDefaults, derive_seed, image_id, parse_row
from operators.sampler_names import SAMPLERS

DEFAULTS = RowDefaults(
    negative_prompt="blurry",
    width=64,
    height=32,
    steps=20,
    guidance_scale=4.0,
    sampler="ddim",
    num_images=1,
    job_seed=7,
    max_pixels=512 * 512,
)


def parse(row):
    return parse_row(row, row_id=3, defaults=DEFAULTS)


def rejection(**row):
    with pytest.raises(RowRejected) as caught:
        parse({"prompt": "a cat", **row})
    assert caught.value.stage == "read"
    return caught.value


def test_absent_and_null_columns_take_the_defaults():
    nulls = dict.fromkeys(("width", "height", "steps", "seed", "sampler", "negative_prompt"))
    (plain,) = parse({"prompt": "a cat"})
    (nulled,) = parse({"prompt": "a cat", **nulls})
    assert plain == nulled
    assert (plain.width, plain.height, plain.steps) == (64, 32, 20)
    assert (plain.guidance_scale, plain.sampler, plain.negative_prompt) == (4.0, "ddim", "blurry")
    assert plain.image_id == "000000003-0"
    assert plain.seed == derive_seed(job_seed=7, row_id=3, image_index=0)


def test_named_columns_are_kept():
    row = {
        "prompt": " a  cat\n",
        "negative_prompt": "",
        "seed": MAX_SEED,
        "width": 128,
        "height": 256,
        "steps": 1000,
        "guidance_scale": 0,
        "sampler": "unipc",
        "num_images": 1,
    }
    (request,) = parse(row)
    assert request.prompt == " a  cat\n"
    assert request.negative_prompt == ""
    assert (request.seed, request.width, request.height) == (MAX_SEED, 128, 256)
    assert (request.steps, request.guidance_scale, request.sampler) == (1000, 0.0, "unipc")


def test_several_images_count_seeds_up_from_the_rows_own():
    requests = parse({"prompt": "a cat", "seed": 10, "num_images": 3})
    assert [r.seed for r in requests] == [10, 11, 12]
    assert [r.image_id for r in requests] == [image_id(3, i) for i in range(3)]
    derived = parse({"prompt": "a cat", "num_images": 3})
    assert len({r.seed for r in derived}) == 3


@pytest.mark.parametrize("prompt", [None, "", " ", "\n\t\u00a0"])
def test_prompts_without_text_are_rejected(prompt):
    error = rejection(prompt=prompt)
    assert error.reason == "empty_prompt"
    assert "expected some text" in error.message


def test_a_row_without_a_prompt_column_is_rejected():
    with pytest.raises(RowRejected, match="prompt is null"):
        parse({})


@pytest.mark.parametrize(
    ("column", "value"), [("prompt", 5), ("prompt", b"cat"), ("negative_prompt", ["bad"])]
)
def test_texts_that_are_no_text_are_rejected(column, value):
    error = rejection(**{column: value})
    assert error.reason == f"bad_{column}"
    assert error.message == f"{column} is {value!r}; expected text"


@pytest.mark.parametrize("column", ["width", "height"])
@pytest.mark.parametrize("value", [0, -8, 7, 65, 64.5, "64", True, math.nan, math.inf, 10**400])
def test_bad_sizes_name_the_column_and_the_multiple(column, value):
    error = rejection(**{column: value})
    assert error.reason == "bad_size"
    assert column in error.message or "pixels" in error.message


def test_sizes_above_the_limit_name_the_key_that_sets_it():
    error = rejection(width=1024, height=512)
    assert error.reason == "bad_size"
    assert "1024 x 512 = 524288 pixels" in error.message
    assert "engine.max_pixels" in error.message
    assert len(parse({"prompt": "a cat", "width": 512, "height": 512})) == 1


@pytest.mark.parametrize("value", [0, 1001, -1, 1.5, math.nan, True, "20", np.bool_(True), 10**400])
def test_bad_steps_are_rejected(value):
    error = rejection(steps=value)
    assert error.reason == "bad_steps"
    assert "expected a whole number from 1 to 1000" in error.message


@pytest.mark.parametrize(
    "value", [1, 20.0, np.int32(5), np.float64(7), np.uint8(9), np.int64(1000)]
)
def test_whole_numbers_of_any_kind_are_steps(value):
    (request,) = parse({"prompt": "a cat", "steps": value})
    assert request.steps == int(value)
    assert type(request.steps) is int


@pytest.mark.parametrize("value", [0, 1001, False])
def test_bad_image_counts_are_rejected(value):
    assert rejection(num_images=value).reason == "bad_num_images"


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, -math.inf, True, "4", 10**400])
def test_bad_guidance_is_rejected(value):
    error = rejection(guidance_scale=value)
    assert error.reason == "bad_guidance_scale"
    assert "guidance_scale is" in error.message


@pytest.mark.parametrize("value", [0, 1, 7.5, np.float32(3.0), 1e38])
def test_sound_guidance_is_a_plain_float(value):
    (request,) = parse({"prompt": "a cat", "guidance_scale": value})
    assert request.guidance_scale == float(value)
    assert type(request.guidance_scale) is float


@pytest.mark.parametrize("value", ["", "DDIM", "k_lms", 3, ["ddim"], {}])
def test_unknown_samplers_are_rejected_with_known_ones(value):
    error = rejection(sampler=value)
    assert error.reason == "unknown_sampler"
    assert repr(value) in error.message
    assert sum(name in error.message for name in SAMPLERS) >= 1


@pytest.mark.parametrize("value", [-1, 2**63, 0.5, True, "1", math.nan])
def test_bad_seeds_are_rejected(value):
    error = rejection(seed=value)
    assert error.reason == "bad_seed"
    assert f"from 0 to {MAX_SEED}" in error.message


def test_the_last_image_of_a_row_needs_a_seed_too():
    error = rejection(seed=MAX_SEED, num_images=2)
    assert error.reason == "bad_seed"
    assert str(MAX_SEED - 1) in error.message


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 999))
def test_derived_seeds_are_stable_and_in_range(job_seed, row_id, index):
    seed = derive_seed(job_seed=job_seed, row_id=row_id, image_index=index)
    assert 0 <= seed <= MAX_SEED
    assert seed == derive_seed(job_seed=job_seed, row_id=row_id, image_index=index)


KNOWN = ("prompt", "seed", "width", "height", "steps", "guidance_scale", "sampler", "num_images")
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text("a \n🦊")


@given(st.dictionaries(st.sampled_from(KNOWN), VALUES))
def test_any_row_becomes_sound_requests_or_one_rejection(row):
    try:
        requests = parse(row)
    except RowRejected:
        return
    for request in requests:
        assert request.prompt.strip()
        assert request.width * request.height <= DEFAULTS.max_pixels
        assert 0 <= request.seed <= MAX_SEED
        assert request.sampler in SAMPLERS
