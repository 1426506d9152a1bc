"""What ``engine.precision`` means on a device, and that images overflow in no VAE."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from operators.engine import ImageResult
from operators.families import load_family
from operators.model_files import describe_model
from operators.precision import dtype_of, name_of
from operators.safe_vae import SafeVae, guard_vae
from tests.stepwise_rows import ask, difference, load, run
from tests.tiny_model import build_tiny_stable_diffusion

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("asked", "device", "has_bfloat16", "expected"),
    [
        ("auto", CPU, True, torch.float32),
        ("auto", GPU, True, torch.bfloat16),
        ("auto", GPU, False, torch.float16),
        ("float32", GPU, True, torch.float32),
        ("float16", GPU, True, torch.float16),
        ("bfloat16", CPU, False, torch.bfloat16),
    ],
)
def test_auto_is_exact_on_a_cpu_and_16_bits_on_a_gpu(
    monkeypatch, asked, device, has_bfloat16, expected
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert dtype_of(asked, device) == expected
    assert name_of(expected) in str(expected)


def test_an_engine_says_which_precision_auto_became(model_path):
    expected = name_of(dtype_of("auto", GPU if torch.cuda.is_available() else CPU))
    assert load(model_path, precision="auto").info.precision == expected


def overflowing(model_path, dtype=torch.float16):
    """A family whose VAE, harmless in float32, exceeds float16's 65504 in one image of a batch."""
    family = load_family(describe_model(str(model_path)), dtype=dtype, device=CPU)
    family.vae.decoder.conv_in.weight *= 100
    return family


def test_a_batch_that_overflows_in_16_bits_is_decoded_again_in_float32(model_path, caplog):
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    latents[1] *= 1000
    family = overflowing(model_path)
    exact = overflowing(model_path, torch.float32).decode(latents)
    assert torch.isfinite(exact).all()
    assert not torch.isfinite(family.decode(latents)).all()
    safe = guard_vae(family, family.vae)
    with caplog.at_level(logging.WARNING):
        made = safe.decode(latents)
        safe.decode(latents)
    assert torch.allclose(made, exact, atol=0.05 * float(exact.abs().max()))
    assert made.dtype == torch.float32
    assert family.vae.dtype == torch.float16
    assert safe.redecoded == 4
    assert "overflowed in the VAE's float16" in caplog.text
    assert "(4 images so far)" in caplog.text


def test_a_black_image_is_decoded_again_and_stays_if_it_is_black_indeed(model_path):
    family = load_family(describe_model(str(model_path)), dtype=torch.float16, device=CPU)
    family.vae.decoder.conv_out.bias -= 100
    safe = SafeVae(family, family.vae)
    made = safe.decode(torch.zeros(1, 4, 16, 16))
    assert bool((made <= -1).all())
    assert made.dtype == torch.float32
    assert safe.redecoded == 1


def test_what_does_not_overflow_is_decoded_once(model_path):
    family = load_family(describe_model(str(model_path)), dtype=torch.float16, device=CPU)
    safe = guard_vae(family, family.vae)
    assert safe.decode(torch.zeros(1, 4, 16, 16)).dtype == torch.float16
    assert safe.redecoded == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vae_that_cannot_overflow_is_not_guarded(model_path, dtype):
    family = load_family(describe_model(str(model_path)), dtype=dtype, device=CPU)
    assert guard_vae(family, family.vae) is family


def test_an_engine_in_16_bits_makes_the_pictures_that_would_overflow(model_path):
    engine = load(model_path, precision="float16")
    exact = load(model_path)
    for each in (engine, exact):
        # the last activation before a normalisation, which hides its scale
        each._family.vae.decoder.conv_in.weight *= 1e5
    rows = [ask(0, steps=2), ask(1, steps=2)]
    made, expected = run(engine, rows), run(exact, rows)
    assert engine._family.redecoded == 2
    for number, outcome in made.items():
        assert isinstance(outcome, ImageResult)
        gap = np.abs(outcome.pixels.astype(int) - expected[number].pixels.astype(int))
        assert gap.mean() < 10
        assert difference(outcome.pixels, np.zeros_like(outcome.pixels)) > 0


def test_whole_pipelines_decode_what_would_overflow_in_float32(model_path):
    engine = load(model_path, engine="pipeline", precision="float16")
    exact = load(model_path, engine="pipeline")
    for each in (engine, exact):
        each._model._pipeline.vae.decoder.conv_in.weight.data *= 1e5
    rows = [ask(0, steps=2), ask(1, steps=2)]
    made, expected = run(engine, rows), run(exact, rows)
    assert engine._model._pipeline.unet.dtype == torch.float16
    for number, outcome in made.items():
        assert isinstance(outcome, ImageResult), outcome
        gap = np.abs(outcome.pixels.astype(int) - expected[number].pixels.astype(int))
        assert gap.mean() < 10


def test_pipelines_in_other_precisions_are_left_alone(model_path):
    engine = load(model_path, engine="pipeline", precision="bfloat16")
    assert engine._model._pipeline.vae.dtype == torch.bfloat16
