"""Objects that are files of this machine.

fsspec's local exclusive create shows half-written files; here a new file is written aside, synced
and hard-linked to its name, so it appears whole or not at all and outlives a power cut.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import BinaryIO

from cluster.names import Names

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)


class LocalFiles:
    """Files below a root folder. A failure is an ``OSError``; whatever did not raise is on disk."""

    replies_get_lost = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, path: str, data: bytes) -> None:
        """Write a new file.

        Raises:
            FileExistsError: it exists with other content.
        """
        target = Path(path)
        temporary = self._write_temporary(target, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            if target.read_bytes() != data:
                raise
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file or replace it in one step."""
        target = Path(path)
        temporary = self._write_temporary(target, data)
        try:
            os.replace(temporary, target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def read(self, path: str) -> bytes | None:
        """All of a file, None where there is none."""
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return Path(path).is_file()

    def open(self, path: str, _retrying: object) -> BinaryIO:
        """The file, to be read in place."""
        return Path(path).open("rb")

    def listing(
        self, path: str, names: Names | None = None
    ) -> tuple[list[tuple[str, int]], list[str]]:
        """The files directly inside a folder with their sizes, and its folders; only ``names``."""
        files: list[tuple[str, int]] = []
        folders: list[str] = []
        try:
            with os.scandir(path or "/") as items:
                for item in items:
                    if names is not None and item.name not in names:
                        continue
                    if item.is_dir():
                        folders.append(item.name)
                    elif item.is_file():
                        files.append((item.name, item.stat().st_size))
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        return files, folders

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is no error."""
        Path(path).unlink(missing_ok=True)

    def _write_temporary(self, target: Path, data: bytes) -> Path:
        _make_folder(target.parent)
        scratch = self._root / ".tmp"
        scratch.mkdir(exist_ok=True)
        temporary = scratch / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _make_folder(folder: Path) -> None:
    """Make a folder that outlives a power cut, with those above it."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make new names in the folder outlive a power cut, where the file system knows how."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
