"""The grammar of scenes, their prompts and their pictures.

Owns what a scene is (one or two shapes on a flat background), which sentences describe it, where
its shapes lie and how it is drawn, and which combinations are never trained on. Knows nothing of
networks: everything here is a pure function of a scene and a ``random.Random``.
"""

import math
import zlib
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]
Point = tuple[float, float]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "green": (25, 150, 55),
    "blue": (30, 65, 215),
    "yellow": (250, 220, 40),
    "orange": (245, 130, 20),
    "purple": (130, 40, 165),
    "cyan": (60, 205, 225),
    "gray": (128, 128, 128),
    "white": (255, 255, 255),
    "black": (10, 10, 10),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star")
RADIUS = {"small": 10.5, "large": 16.0}
SIZES = tuple(RADIUS)
CANVASES = ((64, 64), (64, 96), (96, 64))
"""Height and width in pixels."""
PLACES = ("centre", "left", "right", "top", "bottom")
RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PREFIXES = ("", "", "", "a picture of ", "an image of ")
DEFAULT_BACKGROUND = "white"
"""The background of a prompt that names none."""

EXTENT = 1.06
"""Largest half extent of a shape, in radii."""
HOLD_OUT_ONE_IN = 10
SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One shape as its prompt names it."""

    shape: str
    colour: str
    size: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows: one item at a place, or two items in a relation."""

    items: tuple[Item, ...]
    background: str
    height: int = 64
    width: int = 64
    place: str = "centre"
    relation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An item on the canvas: the middle of its box and its radius, in pixels."""

    item: Item
    x: float
    y: float
    radius: float


def outline(shape: str, x: float, y: float, radius: float) -> list[Point]:
    """The polygon of a shape whose bounding box has its middle at (x, y)."""
    if shape == "square":
        half = 0.9 * radius
        unit = [(-half, -half), (half, -half), (half, half), (-half, half)]
    elif shape == "triangle":
        unit = [(0.0, -0.93 * radius), (EXTENT * radius, 0.93 * radius)]
        unit.append((-EXTENT * radius, 0.93 * radius))
    elif shape == "star":
        unit = _star(1.11 * radius)
    elif shape == "circle":
        turns = [math.tau * k / 48 for k in range(48)]
        unit = [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]
    else:
        raise ValueError(f"unknown shape {shape!r}; shapes: {', '.join(SHAPES)}")
    return [(x + dx, y + dy) for dx, dy in unit]


def _star(outer: float) -> list[Point]:
    """Five points, the first one up, shifted so that the box is centred on the origin."""
    inner, drop = 0.46 * outer, outer * (1 - math.cos(math.pi / 5)) / 2
    points = []
    for k in range(10):
        reach, turn = (outer if k % 2 == 0 else inner), math.pi * k / 5
        points.append((reach * math.sin(turn), drop - reach * math.cos(turn)))
    return points


def coverage(
    shape: str, *, x: float, y: float, radius: float, height: int, width: int
) -> NDArray[np.float32]:
    """How much of each pixel the shape covers, 0 to 1, as (height, width)."""
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING), 0)
    points = [(px * SUPERSAMPLING, py * SUPERSAMPLING) for px, py in outline(shape, x, y, radius)]
    ImageDraw.Draw(canvas).polygon(points, fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255.0


def draw(scene: Scene, placed: list[Placed]) -> Pixels:
    """The picture of a scene, antialiased, as (height, width, 3)."""
    size = (scene.width * SUPERSAMPLING, scene.height * SUPERSAMPLING)
    canvas = Image.new("RGB", size, PALETTE[scene.background])
    pen = ImageDraw.Draw(canvas)
    for one in placed:
        points = outline(one.item.shape, one.x, one.y, one.radius)
        scaled = [(px * SUPERSAMPLING, py * SUPERSAMPLING) for px, py in points]
        pen.polygon(scaled, fill=PALETTE[one.item.colour])
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.uint8)


def layout(scene: Scene, rng: Random) -> list[Placed]:
    """Where the items lie; they never overlap and never leave the canvas."""
    radii = [RADIUS[item.size] * rng.uniform(0.97, 1.03) for item in scene.items]
    if len(scene.items) == 1:
        x = _along(scene.width, radii[0], {"left": -1, "right": 1}.get(scene.place, 0), rng)
        y = _along(scene.height, radii[0], {"top": -1, "bottom": 1}.get(scene.place, 0), rng)
        return [Placed(item=scene.items[0], x=x, y=y, radius=radii[0])]
    return _pair(scene, radii, rng)


def _along(length: int, radius: float, side: int, rng: Random) -> float:
    """A coordinate in the middle (side 0), near the start (-1) or near the end (1)."""
    if side == 0:
        return length / 2 + rng.uniform(-2, 2)
    near = EXTENT * radius + rng.uniform(1.0, 4.0)
    return near if side < 0 else length - near


def _pair(scene: Scene, radii: list[float], rng: Random) -> list[Placed]:
    sideways = scene.relation in ("left of", "right of")
    first_leads = scene.relation in ("left of", "above")
    order = (0, 1) if first_leads else (1, 0)
    length = scene.width if sideways else scene.height
    across = scene.height if sideways else scene.width
    slack = length - 2 * EXTENT * sum(radii)
    wobble = min(2.0, 0.12 * slack)
    placed: list[Placed] = []
    for index, side in zip(order, (-1, 1), strict=True):
        start = 0.28 * slack + EXTENT * radii[index] + rng.uniform(-wobble, wobble)
        main = start if side < 0 else length - start
        other = across / 2 + rng.uniform(-3, 3)
        x, y = (main, other) if sideways else (other, main)
        placed.append(Placed(item=scene.items[index], x=x, y=y, radius=radii[index]))
    return placed


def fits(scene: Scene) -> bool:
    """Two large items need the long side of a canvas of 96 pixels."""
    if len(scene.items) < 2:
        return True
    along = scene.width if scene.relation in ("left of", "right of") else scene.height
    return along > 64 or any(item.size == "small" for item in scene.items)


def is_held_out(scene: Scene) -> bool:
    """Whether a combination is kept from training.

    A single item is held out by its shape, colour, size and background, at every place and on
    every canvas; a pair by both items and their relation, on every background, in either order.
    """
    if len(scene.items) == 1:
        key = f"{scene.items[0]} on {scene.background}"
    else:
        (first, second), relation = scene.items, str(scene.relation)
        if relation in ("right of", "below"):
            first, second, relation = second, first, OPPOSITE[relation]
        key = f"{first} {relation} {second}"
    return zlib.crc32(key.encode()) % HOLD_OUT_ONE_IN == 0


def sample_scene(
    rng: Random, *, items: int, canvas: tuple[int, int] | None = None, held_out: bool = False
) -> Scene:
    """A scene drawn uniformly from the trained or from the held-out combinations."""
    while True:
        scene = _any_scene(rng, items, canvas or rng.choice(CANVASES))
        if fits(scene) and is_held_out(scene) == held_out:
            return scene


def _any_scene(rng: Random, items: int, canvas: tuple[int, int]) -> Scene:
    background = rng.choice(COLOURS)
    colours = [colour for colour in COLOURS if colour != background]
    chosen = tuple(
        Item(shape=rng.choice(SHAPES), colour=rng.choice(colours), size=rng.choice(SIZES))
        for _ in range(items)
    )
    return Scene(
        items=chosen,
        background=background,
        height=canvas[0],
        width=canvas[1],
        place=rng.choice(PLACES) if items == 1 else "centre",
        relation=rng.choice(tuple(RELATIONS)) if items == 2 else None,
    )


def prompt_of(scene: Scene, rng: Random | None = None) -> str:
    """A sentence for a scene: the plain one, or with ``rng`` one of its paraphrases."""
    first = f"a {scene.items[0]}"
    if scene.relation is not None:
        words = RELATIONS[scene.relation]
        body = f"{first} {rng.choice(words) if rng else words[0]} a {scene.items[1]}"
    elif scene.place == "centre":
        body = first + (" in the centre" if rng and rng.random() < 0.3 else "")
    else:
        body = f"{first} at the {scene.place}"
    prefix = rng.choice(PREFIXES) if rng else ""
    return prefix + body + _background(scene.background, rng)


def _background(colour: str, rng: Random | None) -> str:
    if rng and colour == DEFAULT_BACKGROUND and rng.random() < 0.3:
        return ""
    if rng and rng.random() < 0.1:
        return f", {colour} background"
    return f" on {'an' if colour == 'orange' else 'a'} {colour} background"


def held_out_prompts(n: int, seed: int = 0) -> list[tuple[str, Scene]]:
    """``n`` prompts never trained on with their scenes: half single, half pairs, all canvases."""
    rng = Random(f"held out {seed}")
    pairs: list[tuple[str, Scene]] = []
    for index in range(n):
        scene = sample_scene(rng, items=1 + index % 2, held_out=True)
        pairs.append((prompt_of(scene, rng), scene))
    return pairs


def every_word() -> list[str]:
    """All words of the grammar, sorted; the tokenizer makes one token of each."""
    words = {*COLOURS, *SHAPES, *SIZES, *PLACES, "a", "an", "at", "background", "in", "on", ","}
    words.update(word for forms in RELATIONS.values() for form in forms for word in form.split())
    words.update(word for prefix in PREFIXES for word in prefix.split())
    return sorted(words)
