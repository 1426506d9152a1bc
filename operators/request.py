"""One image that somebody asked for, and how a table row becomes such requests.

Pure: values in, values out. Validation lives here so that every engine sees only sound requests.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf.errors import RowRejected
from operators.sampler_names import is_sampler
from operators.samplers_left_out import unknown_sampler

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000
MAX_IMAGES_PER_ROW = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image to make. Sizes in pixels; ``guidance_scale`` <= 1 means no guidance pass."""

    image_id: str
    row_id: int
    image_index: int
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDefaults:
    """What a null or absent known column means, and the limits that rows must keep."""

    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    num_images: int
    job_seed: int
    max_pixels: int
    size_multiple: int = 8


def derive_seed(*, job_seed: int, row_id: int, image_index: int) -> int:
    """A stable seed in [0, 2**63) for a row that names none."""
    digest = hashlib.sha256(f"{job_seed}:{row_id}:{image_index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def image_id(row_id: int, image_index: int) -> str:
    """The image's identity in the job: its row's place in the input and its index in the row."""
    return f"{row_id:09d}-{image_index}"


def parse_row(row: Mapping[str, Any], *, row_id: int, defaults: RowDefaults) -> list[Request]:
    """Turn one input row (known columns only, plain Python values) into its requests.

    Raises:
        RowRejected: stage ``read``, naming the column, what was expected and what was found.
    """
    prompt = _text(row, "prompt", None)
    if not prompt.strip():
        raise _reject("empty_prompt", "the prompt is empty; expected some text")
    width = _size(row, "width", defaults.width, defaults.size_multiple)
    height = _size(row, "height", defaults.height, defaults.size_multiple)
    if width * height > defaults.max_pixels:
        raise _reject(
            "bad_size",
            f"width x height is {width} x {height} = {width * height} pixels; at most "
            f"{defaults.max_pixels} are allowed (engine.max_pixels)",
        )
    count = _integer(row, "num_images", defaults.num_images, MAX_IMAGES_PER_ROW)
    seeds = _seeds(row, count, row_id, defaults.job_seed)
    steps = _integer(row, "steps", defaults.steps, MAX_STEPS)
    guidance_scale = _guidance(row, defaults.guidance_scale)
    sampler = _sampler(row, defaults.sampler)
    negative_prompt = _text(row, "negative_prompt", defaults.negative_prompt)
    return [
        Request(
            image_id=image_id(row_id, index),
            row_id=row_id,
            image_index=index,
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            width=width,
            height=height,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
        )
        for index, seed in enumerate(seeds)
    ]


def _reject(reason: str, message: str) -> RowRejected:
    return RowRejected(stage="read", reason=reason, message=message)


def _text(row: Mapping[str, Any], column: str, default: str | None) -> str:
    value = row.get(column)
    if value is None:
        if default is None:
            raise _reject(f"empty_{column}", f"{column} is null; expected some text")
        return default
    if not isinstance(value, str):
        raise _reject(f"bad_{column}", f"{column} is {value!r}; expected text")
    return value


def _integer(row: Mapping[str, Any], column: str, default: int, high: int) -> int:
    value = row.get(column)
    if value is None:
        return default
    whole = _whole(value)
    if whole is None or not 1 <= whole <= high:
        raise _reject(
            f"bad_{column}", f"{column} is {value!r}; expected a whole number from 1 to {high}"
        )
    return whole


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return int(number) if number.is_integer() else None


def _size(row: Mapping[str, Any], column: str, default: int, multiple: int) -> int:
    value = row.get(column)
    if value is None:
        return default
    whole = _whole(value)
    if whole is None or whole < 1 or whole % multiple:
        raise _reject(
            "bad_size", f"{column} is {value!r}; expected a positive multiple of {multiple} pixels"
        )
    return whole


def _guidance(row: Mapping[str, Any], default: float) -> float:
    value = row.get("guidance_scale")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _reject("bad_guidance_scale", f"guidance_scale is {value!r}; expected a number >= 0")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise _reject(
            "bad_guidance_scale", f"guidance_scale is {value!r}; expected a finite number >= 0"
        )
    return number


def _sampler(row: Mapping[str, Any], default: str) -> str:
    value = row.get("sampler")
    if value is None:
        return default
    if not is_sampler(value):
        raise _reject("unknown_sampler", f"sampler is {value!r}; {unknown_sampler(value)}")
    return str(value)


def _seeds(row: Mapping[str, Any], count: int, row_id: int, job_seed: int) -> list[int]:
    value = row.get("seed")
    if value is None:
        return [derive_seed(job_seed=job_seed, row_id=row_id, image_index=i) for i in range(count)]
    first = _whole(value)
    if first is None or first < 0 or first + count - 1 > MAX_SEED:
        raise _reject(
            "bad_seed",
            f"seed is {value!r}; expected a whole number from 0 to {MAX_SEED - count + 1}",
        )
    return list(range(first, first + count))
