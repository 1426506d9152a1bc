"""Pixels become an image file's bytes, with what made them written inside.

PNG carries two text chunks: ``parameters`` in the convention of the A1111 web UI, which image
viewers and galleries read, and ``imagemill``, the same as JSON. JPEG and WebP carry them as EXIF
UserComment and ImageDescription. The same pixels and parameters give the same bytes. Runs in any
thread; knows nothing of stores.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from operators.engine import Pixels

Parameters = Mapping[str, str | int | float]

_MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
_EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}
_A1111_NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model_revision": "Model hash",
    "model": "Model",
}
"""Our names and A1111's, in A1111's order; ``size`` is made of width and height."""
_IMAGE_DESCRIPTION = 0x010E
_USER_COMMENT = 0x9286
_EXIF_IFD = 0x8769
_JPEG_TEXT_BYTES = 64_000
"""A JPEG segment holds 65,533 bytes; the rest is left for the EXIF directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """An image file in memory; ``extension`` has no dot."""

    data: bytes
    sha256: str
    extension: str
    media_type: str


def encode_image(
    pixels: Pixels, *, image_format: str, quality: int, parameters: Parameters | None
) -> EncodedImage:
    """Encode uint8 pixels, H x W x 3, RGB.

    Args:
        image_format: png, webp or jpeg.
        quality: 1 to 100; for png without meaning.
        parameters: what made the image, e.g. prompt, steps, seed; None writes nothing inside.
            A JPEG has room for about 32,000 characters: what is longer is cut there, never here.

    Raises:
        ValueError: the pixels or the format are something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 H x W x 3")
    if image_format not in _MEDIA_TYPES:
        known = ", ".join(_MEDIA_TYPES)
        raise ValueError(f"image format is {image_format!r}; expected one of {known}")
    data = _encode(Image.fromarray(pixels), image_format, quality, parameters)
    return EncodedImage(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        extension=_EXTENSIONS[image_format],
        media_type=_MEDIA_TYPES[image_format],
    )


def a1111_text(parameters: Parameters) -> str:
    """The prompt, the negative prompt and one line of settings, as the A1111 web UI writes them."""
    named = dict(parameters)
    lines = [str(named.pop("prompt", ""))]
    negative = str(named.pop("negative_prompt", ""))
    if negative:
        lines.append(f"Negative prompt: {negative}")
    if "width" in named and "height" in named:
        named["size"] = f"{named.pop('width')}x{named.pop('height')}"
    known = [(title, named.pop(name)) for name, title in _A1111_NAMES.items() if name in named]
    settings = [f"{title}: {_setting(value)}" for title, value in [*known, *named.items()]]
    return "\n".join([*lines, ", ".join(settings)] if settings else lines)


def _setting(value: str | int | float) -> str:
    """A value that holds a separator is quoted, as A1111 does."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:\n"') else text


def _encode(
    image: Image.Image, image_format: str, quality: int, parameters: Parameters | None
) -> bytes:
    stream = io.BytesIO()
    if image_format == "png":
        image.save(stream, "PNG", pnginfo=_png_text(parameters))
    elif image_format == "webp":
        exif = b"" if parameters is None else _exif(parameters, limit=None)
        image.save(stream, "WEBP", quality=quality, exif=exif)
    else:
        exif = b"" if parameters is None else _exif(parameters, limit=_JPEG_TEXT_BYTES)
        image.save(stream, "JPEG", quality=quality, exif=exif)
    return stream.getvalue()


def _png_text(parameters: Parameters | None) -> PngInfo | None:
    if parameters is None:
        return None
    info = PngInfo()
    info.add_text("parameters", _encodable(a1111_text(parameters)))
    info.add_text("imagemill", _as_json(parameters))
    return info


def _exif(parameters: Parameters, *, limit: int | None) -> bytes:
    comment = _encodable(a1111_text(parameters)).encode("utf-16-be")
    description = _as_json(parameters)
    if limit is not None:
        # an even number of bytes, and never half of a surrogate pair
        comment = comment[:limit].decode("utf-16-be", "ignore").encode("utf-16-be")
        if len(comment) + len(description) > limit:
            description = ""
    exif = Image.Exif()
    if description:
        exif[_IMAGE_DESCRIPTION] = description
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + comment
    return exif.tobytes()


def _as_json(parameters: Parameters) -> str:
    """ASCII, so that it is the same text in every container."""
    return json.dumps(dict(parameters), separators=(",", ":"))


def _encodable(text: str) -> str:
    """Half surrogate pairs, which no encoding holds, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
