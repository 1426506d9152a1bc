"""Reading a scene back from pixels, with nothing but geometry and the palette.

Owns the eye of the adherence measurement. It knows how ideal shapes look; it knows nothing of the
model, the prompt or the scene that was asked for.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.shapes.draw import (
    COLOURS,
    PALETTE,
    RADIUS,
    SHAPES,
    Item,
    Pixels,
    Placed,
    coverage,
)

Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]

UNCLEAR = "unclear"
"""The shape of a patch that resembles none well enough."""
MIN_IOU = 0.75
MIN_CORE = 8
"""Pixels that must be left of a patch once its rim is taken away; fewer is noise or an edge."""
SIZE_LIMIT = sum(RADIUS.values()) / 2
CENTRE_REACH = 6.5
"""Furthest from the canvas's middle, in pixels, that still counts as the centre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was seen: a background and any number of shapes, left to right, then top to bottom."""

    background: str
    shapes: tuple[Placed, ...]
    height: int
    width: int


def read_scene(pixels: Pixels) -> Reading:
    """Read a (height, width, 3) uint8 picture."""
    height, width = pixels.shape[:2]
    values = pixels.astype(np.float32)
    names = quantise(values)
    background = _background(names)
    patches = _patches(names, background)
    on_border = _border(names.shape) & (names == background)
    backdrop = values[on_border].mean(axis=0)
    taken = np.zeros((height, width), dtype=np.int64)
    for index, (patch, _) in enumerate(patches, start=1):
        taken[patch] = index
    shapes = [
        _identify(_soft(values, taken, index, backdrop), COLOURS[colour])
        for index, (_, colour) in enumerate(patches, start=1)
    ]
    shapes.sort(key=lambda one: (one.x, one.y))
    return Reading(background=COLOURS[background], shapes=tuple(shapes), height=height, width=width)


def place_of(reading: Reading) -> str:
    """Where the only shape lies, as the grammar names it."""
    [only] = reading.shapes
    dx, dy = only.x - reading.width / 2, only.y - reading.height / 2
    if max(abs(dx), abs(dy)) <= CENTRE_REACH:
        return "centre"
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "top" if dy < 0 else "bottom"


def relation_of(first: Placed, second: Placed) -> str:
    """How the first of two shapes lies to the second, along the longer of the two distances."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def quantise(values: Plane) -> NDArray[np.int64]:
    """The index of the nearest palette colour of each pixel."""
    palette = np.array([PALETTE[name] for name in COLOURS], dtype=np.float32)
    distance = np.square(values[:, :, None, :] - palette).sum(axis=-1)
    return np.asarray(distance.argmin(axis=-1), dtype=np.int64)


def components(mask: Mask) -> NDArray[np.int64]:
    """Labels of 4-connected regions, 0 outside; each region spreads its smallest index."""
    size = mask.size
    labels = np.where(mask, np.arange(1, size + 1).reshape(mask.shape), size + 1)
    while True:
        padded = np.pad(labels, 1, constant_values=size + 1)
        around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        spread = np.where(mask, np.minimum.reduce([labels, *around]), size + 1)
        if np.array_equal(spread, labels):
            return np.where(mask, labels, 0)
        labels = spread


def _border(shape: tuple[int, ...]) -> Mask:
    border = np.ones(shape, dtype=np.bool_)
    border[2:-2, 2:-2] = False
    return border


def _background(names: NDArray[np.int64]) -> int:
    """The colour most of the border has."""
    counts = np.bincount(names[_border(names.shape)], minlength=len(COLOURS))
    return int(counts.argmax())


def _neighbourhoods(mask: Mask) -> list[Mask]:
    """The mask shifted by at most one pixel in each direction, itself included."""
    padded = np.pad(mask, 1, constant_values=False)
    height, width = mask.shape
    return [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]


def _patches(names: NDArray[np.int64], background: int) -> list[tuple[Mask, int]]:
    """Regions of one colour that are more than a rim, each with its colour."""
    found: list[tuple[Mask, int]] = []
    for colour in np.unique(names):
        if colour == background:
            continue
        labels = components(names == colour)
        for label in np.unique(labels[labels > 0]):
            patch = labels == label
            core = np.logical_and.reduce(_neighbourhoods(patch))
            if core.sum() >= MIN_CORE:
                found.append((patch, int(colour)))
    return found


def _soft(values: Plane, taken: NDArray[np.int64], index: int, backdrop: Plane) -> Plane:
    """How much of each pixel near a patch belongs to it: its colour against the backdrop's."""
    patch = taken == index
    near = patch
    for _ in range(2):
        near = np.logical_or.reduce(_neighbourhoods(near))
    near &= (taken == index) | (taken == 0)
    colour = np.median(values[patch], axis=0)
    axis = colour - backdrop
    share = ((values - backdrop) @ axis) / max(1.0, float(axis @ axis))
    sharpened = np.clip(2.0 * share - 0.5, 0.0, 1.0)
    return np.where(near, sharpened, 0.0).astype(np.float32)


def _identify(soft: Plane, colour: str) -> Placed:
    """The shape whose ideal drawing, at equal area and centroid, overlaps the patch best."""
    best, best_iou = _template_fit(soft, SHAPES[0])
    name = SHAPES[0]
    for shape in SHAPES[1:]:
        fit, iou = _template_fit(soft, shape)
        if iou > best_iou:
            best, best_iou, name = fit, iou, shape
    x, y, radius = best
    size = "large" if radius > SIZE_LIMIT else "small"
    item = Item(shape=name if best_iou >= MIN_IOU else UNCLEAR, colour=colour, size=size)
    return Placed(item=item, x=x, y=y, radius=radius)


def _template_fit(soft: Plane, shape: str) -> tuple[tuple[float, float, float], float]:
    """Middle and radius of the best fit of a shape, and its intersection over union."""
    area, drop = _proportions(shape)
    x, y, total = _moments(soft)
    radius = float(np.sqrt(total / area))
    y -= drop * radius
    height, width = soft.shape
    ideal = coverage(shape, x=x, y=y, radius=radius, height=height, width=width)
    iou = np.minimum(ideal, soft).sum() / np.maximum(ideal, soft).sum()
    return (x, y, radius), float(iou)


def _moments(soft: Plane) -> tuple[float, float, float]:
    """Centroid (pixel edges count from 0, so the first pixel lies at 0.5) and total."""
    total = float(soft.sum())
    rows, columns = np.indices(soft.shape, dtype=np.float32) + 0.5
    return float((soft * columns).sum()) / total, float((soft * rows).sum()) / total, total


@cache
def _proportions(shape: str) -> tuple[float, float]:
    """Area over radius squared, and how far the centroid lies below the box's middle."""
    ideal = coverage(shape, x=64.0, y=64.0, radius=48.0, height=128, width=128)
    _, y, total = _moments(ideal)
    return total / 48.0**2, (y - 64.0) / 48.0
