"""Sizes that a transformer over patches can make."""

from __future__ import annotations

from conf.errors import RowRejected


def check_patches(height: int, width: int, *, multiple: int) -> None:
    """Refuse a size in pixels that whole patches do not fill.

    Raises:
        RowRejected: height or width is no multiple of ``multiple``.
    """
    if height % multiple or width % multiple:
        raise RowRejected(
            stage="denoise",
            reason="bad_size",
            message=f"the size is {width}x{height}; this model makes multiples of {multiple} "
            "pixels; round width and height",
        )
