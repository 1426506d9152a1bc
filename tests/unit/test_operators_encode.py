"""Encoded images: pixels back, parameters back, the same bytes twice."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from operators.encode import a1111_text, encode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
PARAMETERS = {
    "prompt": "a fox 🦊, red",
    "negative_prompt": "blurry",
    "steps": 20,
    "sampler": "ddim",
    "guidance_scale": 4.5,
    "seed": 2**63 - 1,
    "width": 40,
    "height": 24,
    "model": "shapes",
    "model_revision": "0123456789abcdef",
}
FORMATS = ("png", "webp", "jpeg")


def encode(image_format, parameters=PARAMETERS, pixels=PIXELS):
    return encode_image(pixels, image_format=image_format, quality=90, parameters=parameters)


def opened(encoded):
    image = Image.open(io.BytesIO(encoded.data))
    image.load()
    return image


def exif_texts(image):
    exif = image.getexif()
    comment = exif.get_ifd(0x8769).get(0x9286, b"")
    assert comment.startswith(b"UNICODE\0") or not comment
    return comment[8:].decode("utf-16-be"), exif.get(0x010E)


@pytest.mark.parametrize(
    ("image_format", "extension", "media_type"),
    [
        ("png", "png", "image/png"),
        ("webp", "webp", "image/webp"),
        ("jpeg", "jpg", "image/jpeg"),
    ],
)
def test_names_and_digest(image_format, extension, media_type):
    encoded = encode(image_format)
    assert (encoded.extension, encoded.media_type) == (extension, media_type)
    assert encoded.sha256 == hashlib.sha256(encoded.data).hexdigest()
    assert opened(encoded).size == (40, 24)


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_same_image_has_the_same_bytes(image_format):
    assert encode(image_format).data == encode(image_format).data


def test_png_keeps_every_pixel():
    assert np.array_equal(np.array(opened(encode("png"))), PIXELS)


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_lossy_images_look_alike(image_format):
    smooth = np.zeros((64, 64, 3), dtype=np.uint8)
    smooth[:, 32:] = (200, 40, 90)
    found = np.array(opened(encode(image_format, pixels=smooth))).astype(int)
    assert np.abs(found - smooth).mean() < 4


def test_a1111_text_reads_as_the_web_ui_writes_it():
    assert a1111_text(PARAMETERS) == (
        "a fox 🦊, red\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: ddim, CFG scale: 4.5, Seed: 9223372036854775807, Size: 40x24, "
        "Model hash: 0123456789abcdef, Model: shapes"
    )


def test_a1111_text_quotes_values_that_hold_separators():
    text = a1111_text({"prompt": "x", "note": "a, b: c"})
    assert text == 'x\nnote: "a, b: c"'


def test_png_carries_both_texts():
    texts = opened(encode("png")).text
    assert texts["parameters"] == a1111_text(PARAMETERS)
    assert json.loads(texts["imagemill"]) == PARAMETERS


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_exif_carries_both_texts(image_format):
    comment, description = exif_texts(opened(encode(image_format)))
    assert comment == a1111_text(PARAMETERS)
    assert json.loads(description) == PARAMETERS


@pytest.mark.parametrize("image_format", FORMATS)
def test_without_parameters_nothing_is_embedded(image_format):
    image = opened(encode(image_format, None))
    assert not getattr(image, "text", {})
    assert not dict(image.getexif())


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("prompt", ["🦊" * 10_000, "word " * 2_000, "a\nb\0c", "half \ud83e pair"])
def test_long_and_odd_prompts_survive(image_format, prompt):
    image = opened(encode(image_format, {**PARAMETERS, "prompt": prompt}))
    found = image.text["parameters"] if image_format == "png" else exif_texts(image)[0]
    assert found.startswith(prompt.replace("\ud83e", "?"))
    assert found.endswith("Model: shapes")


def test_a_text_that_no_jpeg_can_hold_is_cut_between_characters():
    comment, description = exif_texts(
        opened(encode("jpeg", {**PARAMETERS, "prompt": "x" + "🦊" * 50_000}))
    )
    assert comment.startswith("x🦊")
    assert set(comment[1:]) == {"🦊"}
    assert 31_000 <= len(comment.encode("utf-16-be")) // 2 <= 32_000
    assert description is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=st.text(max_size=50), image_format=st.sampled_from(FORMATS))
def test_any_prompt_comes_back(prompt, image_format):
    image = opened(encode(image_format, {"prompt": prompt, "seed": 1}))
    found = image.text["imagemill"] if image_format == "png" else exif_texts(image)[1]
    assert json.loads(found)["prompt"] == prompt


@pytest.mark.parametrize(
    "pixels", [PIXELS.astype(np.float32), PIXELS[..., 0], np.zeros((4, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ValueError, match="expected uint8 H x W x 3"):
        encode("png", pixels=pixels)


def test_other_formats_are_refused():
    with pytest.raises(ValueError, match="'gif'; expected one of png, webp, jpeg"):
        encode("gif")
