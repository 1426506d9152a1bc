"""The contact sheet and thumbnails: sizes, crispness, and input that must not break them."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageFont

from operators.contact_sheet import WIDE_FONTS, Tile, contact_sheet, thumbnail, wrap


def picture(width: int = 64, height: int = 64, colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    stream = io.BytesIO()
    image = Image.new("RGB", (width, height), colour)
    image.putpixel((0, 0), (0, 0, 255))
    image.save(stream, "PNG")
    return stream.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def sheet_of(*tiles: Tile, columns: int = 3, tile_px: int = 128, title: str = "title") -> bytes:
    return contact_sheet(tiles, columns=columns, tile_px=tile_px, title=title)


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    data = sheet_of(Tile(image_bytes=picture(), caption="red"))
    colours = {colour for _, colour in opened(data).getcolors(100_000) or []}
    assert data.startswith(b"\x89PNG")
    assert (255, 0, 0) in colours
    blue = sum(n for n, colour in opened(data).getcolors(100_000) or [] if colour == (0, 0, 255))
    assert blue == 4, "one pixel became a 2 x 2 square"


def test_rows_and_columns_decide_the_size() -> None:
    tile = Tile(image_bytes=picture(), caption="x")
    one_row = opened(sheet_of(tile, tile, tile))
    two_rows = opened(sheet_of(tile, tile, tile, tile))
    assert one_row.width == two_rows.width
    assert one_row.height < two_rows.height
    assert opened(sheet_of(tile)).width < one_row.width


def test_aspect_is_kept() -> None:
    sheet = opened(sheet_of(Tile(image_bytes=picture(32, 64), caption="")))
    red = [n for n, colour in sheet.getcolors(100_000) or [] if colour == (255, 0, 0)]
    assert red == [64 * 128 - 4], "64 x 128 of the tile's 128 x 128, less the enlarged blue pixel"


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "一只红色的猫 🐈",
        "قطة حمراء",
        "a\x00b\nc\t\u202e",
        "\ud800 half a pair",
        "w" * 5000,
        "x " * 9000,
    ],
)
def test_any_caption_and_title_can_be_drawn(caption: str) -> None:
    data = sheet_of(Tile(image_bytes=picture(), caption=caption), title=caption)
    assert opened(data).height < 400


def test_a_broken_or_missing_picture_leaves_an_empty_frame() -> None:
    broken = [b"", b"not a picture", picture()[:60], None]
    tiles = [Tile(image_bytes=data, caption="broken") for data in broken]
    assert opened(sheet_of(*tiles)).width > 300


def test_a_sheet_without_tiles_still_has_its_title() -> None:
    blank, titled = opened(sheet_of(title="")), opened(sheet_of(title="SIMULATED · nothing yet"))
    assert len(blank.getcolors() or []) == 1
    assert len(titled.getcolors() or []) > 1


def test_wrapping_keeps_to_the_width_and_marks_what_is_left_out() -> None:
    font = ImageFont.load_default(size=13)
    lines = wrap("several words that do not fit into two short lines", font, 80, lines=2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 80 for line in lines)
    assert wrap("short", font, 80, lines=2) == ["short"]


def test_thumbnail_of_a_small_picture_is_pixel_for_pixel_the_same() -> None:
    assert opened(thumbnail(picture(), 256)).tobytes() == opened(picture()).tobytes()


def test_thumbnail_of_a_large_picture_is_small_and_keeps_its_aspect() -> None:
    assert opened(thumbnail(picture(1000, 500), 256)).size == (256, 128)


def test_thumbnail_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture"):
        thumbnail(b"nothing", 64)


def test_letters_with_marks_are_told_apart_where_the_machine_has_a_font_with_them() -> None:
    def has(name: str) -> bool:
        try:
            return bool(ImageFont.truetype(name, 13))
        except OSError:
            return False

    one, other = (sheet_of(Tile(image_bytes=None, caption=text)) for text in ("üïö", "éàñ"))
    assert (one != other) == any(map(has, WIDE_FONTS))
