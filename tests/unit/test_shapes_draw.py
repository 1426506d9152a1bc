"""Scenes, prompts and pictures: the grammar is unambiguous and the hold-out is never trained on."""

from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.shapes.autoencoder import random_scene
from models.shapes.draw import (
    CANVASES,
    EXTENT,
    OPPOSITE,
    PALETTE,
    SHAPES,
    Item,
    Placed,
    Scene,
    coverage,
    draw,
    every_word,
    held_out_prompts,
    is_held_out,
    layout,
    prompt_of,
    sample_scene,
)

STAR = Item(shape="star", colour="yellow", size="small")
CIRCLE = Item(shape="circle", colour="red", size="large")

seeds = st.integers(min_value=0, max_value=2**32)
counts = st.integers(min_value=1, max_value=2)


def _overlap(one: Placed, other: Placed) -> bool:
    reach = one.radius + other.radius
    return abs(one.x - other.x) < reach and abs(one.y - other.y) < reach


def test_the_plain_prompts_read_as_documented() -> None:
    pair = Scene(items=(STAR, CIRCLE), relation="left of", background="black")
    alone = Scene(items=(STAR,), place="top", background="orange")
    assert prompt_of(pair) == "a small yellow star left of a large red circle on a black background"
    assert prompt_of(alone) == "a small yellow star at the top on an orange background"


def test_training_never_draws_a_held_out_combination() -> None:
    rng = Random(7)
    trained = [random_scene(rng, CANVASES[n % 3]) for n in range(3000)]
    assert not any(is_held_out(scene) for scene in trained)
    asked = held_out_prompts(500, seed=0)
    assert all(is_held_out(scene) for _, scene in asked)
    sentences = {prompt_of(scene, rng) for scene in trained}
    assert not sentences & {prompt for prompt, _ in asked}


def test_held_out_prompts_are_the_same_every_time_and_evenly_mixed() -> None:
    asked = held_out_prompts(500, seed=0)
    assert asked == held_out_prompts(500, seed=0)
    assert asked != held_out_prompts(500, seed=1)
    assert sum(len(scene.items) == 2 for _, scene in asked) == 250
    assert {(scene.height, scene.width) for _, scene in asked} == set(CANVASES)


@settings(deadline=None)
@given(seed=seeds)
def test_a_pair_is_held_out_in_both_orders_or_in_none(seed: int) -> None:
    scene = sample_scene(Random(seed), items=2, held_out=seed % 2 == 0)
    mirrored = Scene(
        items=(scene.items[1], scene.items[0]),
        relation=OPPOSITE[str(scene.relation)],
        background=scene.background,
    )
    assert is_held_out(mirrored) == is_held_out(scene)


@settings(deadline=None)
@given(seed=seeds, items=counts)
def test_shapes_stay_on_the_canvas_and_apart(seed: int, items: int) -> None:
    rng = Random(seed)
    scene = sample_scene(rng, items=items)
    placed = layout(scene, rng)
    for one in placed:
        reach = EXTENT * one.radius
        assert reach <= one.x <= scene.width - reach
        assert reach <= one.y <= scene.height - reach
    assert not any(_overlap(one, other) for one, other in combinations(placed, 2))


@settings(deadline=None)
@given(seed=seeds, items=counts)
def test_a_picture_has_the_size_of_its_canvas_and_its_background_in_the_corner(
    seed: int, items: int
) -> None:
    rng = Random(seed)
    scene = sample_scene(rng, items=items)
    pixels = draw(scene, layout(scene, rng))
    assert pixels.shape == (scene.height, scene.width, 3)
    assert tuple(pixels[0, 0]) == PALETTE[scene.background]


@settings(deadline=None)
@given(seed=seeds, items=counts)
def test_every_word_of_a_prompt_is_in_the_vocabulary(seed: int, items: int) -> None:
    rng = Random(seed)
    prompt = prompt_of(sample_scene(rng, items=items), rng)
    assert set(prompt.replace(",", " ,").split()) <= set(every_word())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_centred_by_its_box(shape: str) -> None:
    mask = coverage(shape, x=32.0, y=32.0, radius=20.0, height=64, width=64) > 0.5
    rows, columns = np.nonzero(mask)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(32.0, abs=1.0)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(32.0, abs=1.0)


def test_an_unknown_shape_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown shape 'hexagon'; shapes: circle, square"):
        coverage("hexagon", x=0.0, y=0.0, radius=1.0, height=8, width=8)
