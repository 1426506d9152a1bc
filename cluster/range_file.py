"""A remote object as a file: what is read is fetched, nothing is kept but a little ahead."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

_AHEAD_BYTES = 2**20


class _Ranges(io.RawIOBase):
    def __init__(self, name: str, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self.name = name
        self._size = size
        self._fetch = fetch
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._fetch(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def range_file(name: str, *, size: int, fetch: Callable[[int, int], bytes]) -> BinaryIO:
    """A seekable binary file of ``size`` bytes; ``fetch(start, end)`` gives bytes of it."""
    raw = _Ranges(name, size, fetch)
    return cast(BinaryIO, io.BufferedReader(raw, buffer_size=_AHEAD_BYTES))
