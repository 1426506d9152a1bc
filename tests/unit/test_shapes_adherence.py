"""The eye that judges the model reads pictures of known scenes right, also disturbed ones."""

import io
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.shapes.adherence import markdown, score, table
from models.shapes.draw import Item, Pixels, Scene, draw, layout, sample_scene
from models.shapes.reading import read_scene

PICTURES = 200


def _untouched(pixels: Pixels) -> Pixels:
    return pixels


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 10, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.8)))


def _through_jpeg(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def _drawn(seed: int, items: int) -> tuple[Scene, Pixels]:
    rng = Random(seed)
    scene = sample_scene(rng, items=items)
    return scene, draw(scene, layout(scene, rng))


@pytest.mark.parametrize("disturb", [_untouched, _noisy, _blurred, _through_jpeg])
def test_drawn_scenes_are_read_right_99_times_in_100(disturb: Callable[[Pixels], Pixels]) -> None:
    right = 0
    for seed in range(PICTURES):
        scene, pixels = _drawn(seed, items=1 + seed % 2)
        right += score(disturb(pixels), scene).all_right
    assert right >= 0.99 * PICTURES


def test_each_wrong_attribute_of_a_single_shape_is_noticed() -> None:
    item = Item(shape="circle", colour="red", size="small")
    scene = Scene(items=(item,), background="blue", place="left")
    pixels = draw(scene, layout(scene, Random(0)))
    wrong = {
        "background": replace(scene, background="green"),
        "colours": replace(scene, items=(replace(item, colour="orange"),)),
        "shapes": replace(scene, items=(replace(item, shape="square"),)),
        "sizes": replace(scene, items=(replace(item, size="large"),)),
        "relations": replace(scene, place="top"),
    }
    assert score(pixels, scene).all_right
    for attribute, asked in wrong.items():
        one = score(pixels, asked)
        missed = [name for name in wrong if not getattr(one, name)]
        assert missed == [attribute]


def test_swapped_shapes_break_the_relation_and_nothing_else() -> None:
    scene, pixels = _drawn(3, items=2)
    swapped = replace(scene, items=(scene.items[1], scene.items[0]))
    one = score(pixels, swapped)
    assert (one.background, one.colours, one.shapes, one.sizes) == (True,) * 4
    assert not one.relations


def test_a_missing_shape_is_never_all_right() -> None:
    scene, _ = _drawn(5, items=2)
    alone = replace(scene, items=scene.items[:1], relation=None)
    one = score(draw(alone, layout(alone, Random(0))), scene)
    assert one.background
    assert not one.all_right


def test_an_empty_picture_has_a_background_and_no_shapes() -> None:
    reading = read_scene(np.full((64, 96, 3), 255, dtype=np.uint8))
    assert (reading.background, reading.shapes) == ("white", ())


def test_the_table_counts_each_group() -> None:
    pairs = [_drawn(seed, items=1 + seed % 2) for seed in range(12)]
    rows = table([(scene, score(pixels, scene)) for scene, pixels in pairs])
    assert [row["group"] for row in rows[:3]] == ["all", "one shape", "two shapes"]
    assert [row["pictures"] for row in rows[:3]] == [12, 6, 6]
    assert "| one shape | 6 | 100.0 |" in markdown(rows)
