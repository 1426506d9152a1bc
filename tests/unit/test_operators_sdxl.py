"""What Stable Diffusion XL does beside Stable Diffusion, against the unmodified pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conf.errors import ModelUnusable
from operators.engine import ImageResult
from operators.families import FAMILIES
from operators.families.family import stack
from operators.model_files import COMPONENTS
from tests.stepwise_rows import ask, difference, load, reference, run
from tests.tiny_model import SIZE
from tests.tiny_sdxl import PROJECTION, build_tiny_sdxl


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return load(build_tiny_sdxl(tmp_path_factory.mktemp("sdxl")))


def conditioning(engine, text):
    with torch.inference_mode():
        return engine._conditioner.condition([text], batch=1)[text]


def check(path, requests):
    """The engine's pictures, which must be those of the pipeline."""
    expected = reference(path, requests)
    made = run(load(path), requests)
    for row_id, outcome in made.items():
        assert isinstance(outcome, ImageResult), outcome
        assert difference(outcome.pixels, expected[row_id]) <= 1
    return {row_id: outcome.pixels for row_id, outcome in made.items()}


def test_a_text_is_the_embeddings_of_both_encoders_and_their_pooled_one(engine):
    made = conditioning(engine, "a fox")
    assert {name: tuple(one.shape) for name, one in made.tensors.items()} == {
        "embeddings": (24, 16 + 24),
        "pooled": (PROJECTION,),
    }
    assert made.bytes == 4 * (24 * 40 + PROJECTION)
    both = stack([made, conditioning(engine, "a dog")])
    assert both["pooled"].shape == (2, PROJECTION)
    assert not torch.equal(both["pooled"][0], both["pooled"][1])


def test_an_absent_negative_prompt_is_zeros_and_does_not_touch_its_neighbours(engine):
    with torch.inference_mode():
        absent, fox = range(2)
        together = engine._family.embed([None, "a fox"])
        alone = engine._family.embed(["a fox"])
        empty = engine._family.embed([""])
    for name, tensor in together.items():
        assert not tensor[absent].any()
        assert torch.allclose(tensor[fox], alone[name][0], atol=1e-5)
        assert empty[name].any()


@pytest.mark.parametrize("force_zeros", [True, False])
def test_an_empty_negative_prompt_is_what_the_folder_says(tmp_path, force_zeros):
    path = build_tiny_sdxl(tmp_path, force_zeros=force_zeros)
    pictures = check(path, [ask(0, guidance_scale=9.0), ask(1, negative_prompt="ugly")])
    family = load(path)._family
    with torch.inference_mode():
        assert bool(family.embed([None])["embeddings"].any()) is not force_zeros
    assert difference(pictures[0], pictures[1]) > 3


def test_the_size_of_a_row_reaches_the_denoiser(engine):
    latents = torch.zeros(2, 4, SIZE // 2, SIZE // 2)
    with torch.inference_mode():
        made = [
            engine._family.predict(
                latents, torch.full((2,), 500.0), engine._family.embed(["a", "b"]), size
            )
            for size in ((SIZE, SIZE), (2 * SIZE, SIZE), (SIZE, 2 * SIZE))
        ]
    assert not torch.allclose(made[0], made[1], atol=1e-3)
    assert not torch.allclose(made[1], made[2], atol=1e-3)


def test_upright_and_lying_rows_are_those_of_diffusers(tmp_path):
    check(build_tiny_sdxl(tmp_path), [ask(0, width=2 * SIZE), ask(1, height=2 * SIZE), ask(2)])


def test_latents_with_a_mean_and_a_spread_are_those_of_diffusers(tmp_path):
    options = {
        "latents_mean": [0.3, -1.2, 0.5, 2.0],
        "latents_std": [1.5, 0.7, 1.1, 2.2],
        "scaling_factor": 0.5,
    }
    rows = [ask(0), ask(1, sampler="dpmpp_2m")]
    special = check(build_tiny_sdxl(tmp_path / "special", vae_options=options), rows)
    plain = run(load(build_tiny_sdxl(tmp_path / "plain")), rows)
    assert all(difference(special[n], plain[n].pixels) > 3 for n in special)


@pytest.mark.parametrize(
    ("precision", "upcast", "expected"),
    [
        ("float16", True, torch.float32),
        ("float16", False, torch.float16),
        ("bfloat16", True, torch.bfloat16),
        ("float32", True, torch.float32),
    ],
)
def test_the_decoder_is_float32_where_the_pipeline_makes_it_so(
    tmp_path, precision, upcast, expected
):
    path = build_tiny_sdxl(tmp_path, vae_options={"force_upcast": upcast})
    engine = load(path, precision=precision)
    assert engine._family.vae.dtype == expected
    (made,) = run(engine, [ask(0, steps=2)]).values()
    (exact,) = run(load(path), [ask(0, steps=2)]).values()
    assert np.abs(made.pixels.astype(int) - exact.pixels.astype(int)).mean() < 10


def test_a_unet_of_other_time_ids_is_refused_as_a_refiner(tmp_path):
    path = build_tiny_sdxl(tmp_path, time_ids=5)
    with pytest.raises(ModelUnusable, match="Refiners are not supported") as caught:
        load(path)
    assert f"takes {PROJECTION + 5 * 8} added inputs" in str(caught.value)
    assert f"expected {PROJECTION} of the pooled text and 6 time ids of 8" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("addition_embed_type", None, "addition_embed_type=None; expected text_time"),
        ("time_cond_proj_dim", 8, "time_cond_proj_dim=8, an input that the stepwise engine"),
        ("in_channels", 9, "takes 9 channels, its VAE makes 4"),
    ],
)
def test_a_unet_of_other_inputs_is_refused(tmp_path, option, value, words):
    path = build_tiny_sdxl(tmp_path)
    rebuild_unet(path, **{option: value})
    with pytest.raises(ModelUnusable, match=words):
        load(path)


def rebuild_unet(path, **options):
    from diffusers import UNet2DConditionModel

    config = dict(UNet2DConditionModel.load_config(path / "unet"))
    UNet2DConditionModel.from_config(config | options).save_pretrained(path / "unet")


def test_every_supported_pipeline_has_its_adapter():
    assert list(FAMILIES) == list(COMPONENTS)
