"""Object storage: keys under one root URL, put-if-absent writes with three told-apart outcomes.

Any fsspec file system. Local folders get an atomic put-if-absent of their own (write, fsync, hard
link), since fsspec's local exclusive create shows half-written files. The store knows nothing of
shards or commits.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from conf.errors import (
    CommitConflict,
    CommitUnknown,
    ConfigError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

T = TypeVar("T")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)
_EXISTS = (errno.EEXIST, errno.EINVAL)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object in a listing: its key below the root and its size in bytes."""

    key: str
    bytes: int


class Store:
    """Objects below one URL. Safe to use from several threads.

    Invariant: ``put_if_absent`` never changes an existing object; readers never see part of one.
    """

    def __init__(
        self, url: str, *, options: Mapping[str, Any] | None = None, attempts: int = 5
    ) -> None:
        try:
            fs, root = fsspec.core.url_to_fs(url, **dict(options or {}))
        except (ValueError, ImportError) as error:
            raise ConfigError(f"cannot use '{url}' as a store: {error}") from error
        self.url = url
        self._fs = fs
        self._root = str(root).rstrip("/")
        self._attempts = attempts
        self._local = isinstance(fs, LocalFileSystem)

    def path(self, key: str) -> str:
        """The key as a path of the file system, for messages and for opening in place."""
        return f"{self._root}/{key}"

    @property
    def local_root(self) -> Path | None:
        """The root folder where the store is a local one."""
        return Path(self._root) if self._local else None

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write a new object; writing the same bytes again is no error.

        Raises:
            CommitConflict: the key holds other content; nothing was changed.
            CommitUnknown: the write may have landed, and re-reading did not answer either.
            StoreFull, StoreRefused: it did not land.
            StoreUnavailable: it was not seen to land within the attempts. On a remote store it may
                land still: whoever named rows in it must treat it as unknown.
        """
        create = self._link_new if self._local else self._create
        self._retrying(key, lambda: create(key, data))

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object that is derived from others (reports, indexes)."""
        if self._local:
            self._retrying(key, lambda: self._replace(key, data))
            return
        self._retrying(key, lambda: self._fs.pipe_file(self.path(key), data))

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is no such key."""

        def read() -> bytes | None:
            try:
                data: bytes = self._fs.cat_file(self.path(key))
            except (FileNotFoundError, NotADirectoryError):
                return None
            return data

        return self._retrying(key, read)

    def exists(self, key: str) -> bool:
        """Whether the key exists."""

        def look() -> bool:
            # not isfile(), which takes a store that does not answer for one that has no such key
            try:
                kind: str = self._fs.info(self.path(key), refresh=True)["type"]
            except (FileNotFoundError, NotADirectoryError):
                return False
            return kind == "file"

        return self._retrying(key, look)

    def open(self, key: str) -> Any:
        """A seekable binary file for reading the object in place."""
        return self._retrying(key, lambda: self._fs.open(self.path(key), "rb"))

    def listing(self, prefix: str) -> list[Entry]:
        """The objects directly inside the folder ``prefix`` (of bounded size), sorted by key."""

        def ls() -> list[Entry]:
            try:
                items = self._fs.ls(self.path(prefix).rstrip("/"), detail=True, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [self._entry(item) for item in items if item["type"] == "file"]

        return sorted(self._retrying(prefix, ls), key=lambda entry: entry.key)

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders directly inside ``prefix``, sorted."""

        def ls() -> list[str]:
            try:
                items = self._fs.ls(self.path(prefix).rstrip("/"), detail=True, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            found = [str(i["name"]) for i in items if i["type"] == "directory"]
            return [name.rstrip("/").rsplit("/", 1)[-1] for name in found]

        return sorted(self._retrying(prefix, ls))

    def walk(self, prefix: str) -> Iterator[Entry]:
        """All objects below ``prefix``, a folder at a time."""
        yield from self.listing(prefix)
        for name in self.folders(prefix):
            yield from self.walk(f"{prefix.rstrip('/')}/{name}/".lstrip("/"))

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

        def remove() -> None:
            try:
                self._fs.rm_file(self.path(key))
            except FileNotFoundError:
                return

        self._retrying(key, remove)

    def probe(self) -> None:
        """Prove, before anything starts, that the store can be written and can put-if-absent.

        Raises:
            StoreRefused: it cannot, and why.
        """
        key = f".probe-{secrets.token_hex(6)}"
        try:
            self.put_if_absent(key, b"one")
            try:
                self.put_if_absent(key, b"two")
            except CommitConflict:
                return
            raise StoreRefused(
                f"{self.url} overwrote an existing object although asked not to: a store without "
                "put-if-absent cannot promise exactly-once; choose another output.path"
            )
        except StoreFull as error:
            raise StoreRefused(f"output.path {self.url} is full: {error}") from error
        except StoreUnavailable as error:
            raise StoreRefused(f"cannot write to output.path {self.url}: {error}") from error
        finally:
            self._remove_probe(key)

    def _remove_probe(self, key: str) -> None:
        try:
            self.delete(key)
        except StoreUnavailable:
            return

    def _entry(self, item: Mapping[str, Any]) -> Entry:
        name = str(item["name"])
        relative = name[len(self._root) :] if name.startswith(self._root) else name
        return Entry(key=relative.lstrip("/"), bytes=int(item["size"] or 0))

    def _retrying(self, key: str, operation: Callable[[], T]) -> T:
        """Run with exponential pauses and full jitter; only what may pass is tried again."""
        for attempt in range(1, self._attempts + 1):
            try:
                return operation()
            except OSError as error:
                mapped = _mapped(error, self.path(key))
                if not isinstance(mapped, StoreUnavailable) or attempt == self._attempts:
                    raise mapped from error
            longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
            time.sleep(random.uniform(0, longest))
        raise AssertionError("unreachable: attempts is at least 1")

    def _link_new(self, key: str, data: bytes) -> None:
        target = Path(self.path(key))
        temporary = self._write_temporary(target, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            if target.read_bytes() != data:
                raise CommitConflict(f"{target} exists with other content") from None
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def _replace(self, key: str, data: bytes) -> None:
        target = Path(self.path(key))
        temporary = self._write_temporary(target, data)
        try:
            os.replace(temporary, target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def _write_temporary(self, target: Path, data: bytes) -> Path:
        _make_folder(target.parent)
        scratch = Path(self._root) / ".tmp"
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

    def _create(self, key: str, data: bytes) -> None:
        path = self.path(key)
        try:
            self._fs.pipe_file(path, data, mode="create")
        except OSError as error:
            self._settle(path, data, error)

    def _settle(self, path: str, data: bytes, error: OSError) -> None:
        """The write failed or the key exists: what the key holds now tells which."""
        refused = isinstance(error, FileExistsError) or error.errno in _EXISTS
        try:
            found = self._fs.cat_file(path)
        except FileNotFoundError:
            raise error from None
        except OSError as unread:
            if refused:
                raise CommitConflict(f"{path} exists; its content could not be read") from unread
            raise CommitUnknown(f"{path}: the write may have landed ({error})") from error
        if found != data:
            raise CommitConflict(f"{path} exists with other content") from error


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


def _mapped(error: OSError, path: str) -> Exception:
    """The error of our tree for what the file system raised."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return StoreFull(f"cannot write {path}: {reason}")
    if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError) or (
        error.errno in (errno.EROFS, errno.ENAMETOOLONG)
    ):
        return StoreRefused(f"cannot write {path}: {reason}; choose another output.path")
    return StoreUnavailable(f"{path}: {reason}")
