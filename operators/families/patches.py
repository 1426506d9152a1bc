"""Sizes that a transformer over patches can make."""

from __future__ import annotations

from conf.errors import RowRejected


def check_patches(height: int, width: int, *, multiple: int, most: int | None = None) -> None:
    """Refuse a size in pixels that whole patches do not fill, or too many of them.

    Raises:
        RowRejected: height or width is no multiple of ``multiple``, or above ``most``.
    """
    if most is not None and max(height, width) > most:
        raise RowRejected(
            stage="denoise",
            reason="bad_size",
            message=f"the size is {width}x{height}; this model makes at most {most} pixels a "
            "side; ask for a smaller width and height",
        )
    if height % multiple or width % multiple:
        raise RowRejected(
            stage="denoise",
            reason="bad_size",
            message=f"the size is {width}x{height}; this model makes multiples of {multiple} "
            "pixels; round width and height",
        )
