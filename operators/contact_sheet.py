"""A contact sheet: many pictures with their captions on one page; and thumbnails of single ones.

Small pictures are enlarged with nearest neighbour, so that 64 x 64 pixels stay crisp. Knows nothing
of jobs: a title that must say "SIMULATED" is the caller's to write. A picture that cannot be opened
becomes an empty frame, a character that no font at hand has becomes a box.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

THUMBNAIL_MEDIA_TYPE = "image/webp"
"""The format of ``thumbnail``."""

_BACKGROUND = (250, 250, 248)
_FRAME = (226, 226, 222)
_INK = (32, 33, 36)
_SOFT = (108, 110, 115)
_GAP_PX = 14
_CAPTION_PX = 13
_TITLE_PX = 20
_CAPTION_LINES = 3
_LONGEST_CAPTION = 400
_ELLIPSIS = "…"
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")
"""What a machine may have for the letters that Pillow's own font lacks, as ü, the best first."""
_OWN_LETTERS = "·…"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture (an image file's bytes, or None for an empty frame) and the text below it."""

    image_bytes: bytes | None
    caption: str


def contact_sheet(tiles: Sequence[Tile], *, columns: int, tile_px: int, title: str) -> bytes:
    """Lay the tiles out in rows of ``columns`` under a title; returns a PNG file."""
    written = title + "".join(tile.caption for tile in tiles)
    caption_font, title_font = _font(written, _CAPTION_PX), _font(written, _TITLE_PX)
    columns = max(1, min(columns, len(tiles)) if tiles else columns)
    width = columns * (tile_px + _GAP_PX) + _GAP_PX
    heading = wrap(title, title_font, width - 2 * _GAP_PX, lines=2)
    captions = [wrap(tile.caption, caption_font, tile_px, lines=_CAPTION_LINES) for tile in tiles]
    top = _GAP_PX + max(1, len(heading)) * _line_px(_TITLE_PX) + _GAP_PX
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    heights = [_row_px(tile_px, max(len(captions[i]) for i in row)) for row in rows]
    sheet = Image.new("RGB", (width, top + (sum(heights) or _GAP_PX)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_GAP_PX, _GAP_PX), heading, title_font, _TITLE_PX, _INK)
    for row, height in zip(rows, heights, strict=True):
        for place, index in enumerate(row):
            left = _GAP_PX + place * (tile_px + _GAP_PX)
            _paste(sheet, draw, tiles[index].image_bytes, (left, top), tile_px)
            below = (left, top + tile_px + _GAP_PX // 2)
            _write(draw, below, captions[index], caption_font, _CAPTION_PX, _SOFT)
        top += height
    return _as_png(sheet)


def thumbnail(image_bytes: bytes, max_px: int) -> bytes:
    """A WebP file of at most ``max_px`` pixels a side, aspect kept and metadata left out.

    A picture that is small already stays pixel for pixel what it is.

    Raises:
        ValueError: the bytes are no picture.
    """
    picture = _opened(image_bytes)
    if picture is None:
        raise ValueError(f"{len(image_bytes)} bytes that are no picture")
    stream = io.BytesIO()
    if max(picture.size) <= max_px:
        picture.save(stream, "WEBP", lossless=True, quality=80)
    else:
        picture.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
        picture.save(stream, "WEBP", quality=84)
    return stream.getvalue()


def wrap(text: str, font: _Font, width_px: int, *, lines: int) -> list[str]:
    """Break ``text`` into at most ``lines`` lines; what is left out is marked with an ellipsis."""
    words = _plain(text).split()
    found: list[str] = []
    current = ""
    for word in words:
        longer = f"{current} {word}".strip()
        if font.getlength(longer) <= width_px:
            current = longer
            continue
        if current:
            found.append(current)
        *whole, current = _pieces(word, font, width_px)
        found += whole
        if len(found) > lines:
            break
    if current:
        found.append(current)
    if len(found) > lines:
        found = [*found[: lines - 1], _shortened(found[lines - 1], font, width_px)]
    return found


def _plain(text: str) -> str:
    """One line of what a font can be asked to draw: no control characters or half surrogates."""
    if len(text) > _LONGEST_CAPTION:
        text = text[: _LONGEST_CAPTION - 1] + _ELLIPSIS
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if char.isspace() or ord(char) < 32 else char for char in text)


def _pieces(word: str, font: _Font, width_px: int) -> list[str]:
    """The word, cut where it is wider than a line."""
    pieces = [""]
    for char in word:
        if pieces[-1] and font.getlength(pieces[-1] + char) > width_px:
            pieces.append("")
        pieces[-1] += char
    return pieces


def _shortened(line: str, font: _Font, width_px: int) -> str:
    while line and font.getlength(line + _ELLIPSIS) > width_px:
        line = line[:-1]
    return line.rstrip() + _ELLIPSIS


def _font(written: str, px: int) -> _Font:
    """Pillow's own, or one of this machine's that has more letters where they are wanted."""
    if not all(char.isascii() or char in _OWN_LETTERS for char in written):
        for name in WIDE_FONTS:
            with suppress(OSError):
                return ImageFont.truetype(name, px)
    return ImageFont.load_default(size=px)


def _line_px(font_px: int) -> int:
    return font_px * 4 // 3


def _row_px(tile_px: int, lines: int) -> int:
    return tile_px + _GAP_PX // 2 + lines * _line_px(_CAPTION_PX) + _GAP_PX


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[str],
    font: _Font,
    font_px: int,
    colour: tuple[int, int, int],
) -> None:
    for number, line in enumerate(lines):
        draw.text((at[0], at[1] + number * _line_px(font_px)), line, font=font, fill=colour)


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    data: bytes | None,
    at: tuple[int, int],
    tile_px: int,
) -> None:
    """The picture in the middle of its tile."""
    picture = None if data is None else _opened(data)
    left, top = at
    draw.rectangle((left, top, left + tile_px - 1, top + tile_px - 1), fill=_FRAME)
    if picture is None:
        draw.line((left, top, left + tile_px - 1, top + tile_px - 1), fill=_SOFT)
        draw.line((left, top + tile_px - 1, left + tile_px - 1, top), fill=_SOFT)
        return
    fitted = _fit(picture, tile_px)
    middle = (left + (tile_px - fitted.width) // 2, top + (tile_px - fitted.height) // 2)
    sheet.paste(fitted, middle)


def _fit(picture: Image.Image, tile_px: int) -> Image.Image:
    scale = tile_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    smaller = scale < 1
    return picture.resize(size, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)


def _opened(data: bytes) -> Image.Image | None:
    """The decoded picture, or None where the bytes are none."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except _UNREADABLE:
        return None


def _as_png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
