"""Objects of any fsspec file system that has no room of its own here (``memory://`` and others)."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from fsspec.implementations.memory import MemoryFileSystem

from cluster.names import Names


class PlainObjects:
    """Objects by path. Every call is one try; a failure is any of ``store_errors.FAILURES``, and a
    write that failed may have landed all the same."""

    replies_get_lost = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def create(self, path: str, data: bytes) -> None:
        """Write a new object.

        Raises:
            FileExistsError: the key is taken; by whom and with what is not known.
        """
        self._fs.pipe_file(path, data, mode="create")

    def replace(self, path: str, data: bytes) -> None:
        """Write an object or replace it."""
        self._fs.pipe_file(path, data)

    def read(self, path: str) -> bytes | None:
        """All of an object, None where there is none."""
        try:
            data: bytes = self._fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        # not isfile(), which takes a store that does not answer for one that has no such key
        try:
            kind: str = self._fs.info(path, refresh=True)["type"]
        except (FileNotFoundError, NotADirectoryError):
            return False
        return kind == "file"

    def open(self, path: str, _retrying: object) -> BinaryIO:
        """The object as a seekable file."""
        if isinstance(self._fs, MemoryFileSystem):  # its open files share one position
            return io.BytesIO(self._fs.cat_file(path))
        return cast(BinaryIO, self._fs.open(path, "rb"))

    def listing(
        self, path: str, names: Names | None = None
    ) -> tuple[list[tuple[str, int]], list[str]]:
        """The objects directly inside a folder with their sizes, and its folders; only ``names``,
        although fsspec knows no way to ask for some alone."""
        try:
            items = self._fs.ls(path.rstrip("/"), detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        found = ((str(item["name"]).rstrip("/").rsplit("/", 1)[-1], item) for item in items)
        named = [(name, item) for name, item in found if names is None or name in names]
        files = [(name, int(item["size"] or 0)) for name, item in named if item["type"] == "file"]
        return files, [name for name, item in named if item["type"] == "directory"]

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is no error."""
        try:
            self._fs.rm_file(path)
        except FileNotFoundError:
            return
