"""Object storage: keys under one root URL, put-if-absent writes with three told-apart outcomes.

Owns keys, patience and the settling of writes whose reply was lost. What one request does is the
business of ``LocalFiles``, ``S3Objects`` and ``PlainObjects``. The store knows nothing of shards or
commits.
"""

from __future__ import annotations

import copy
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import BinaryIO, Self, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from cluster.local_files import LocalFiles
from cluster.names import Names
from cluster.patience import patiently
from cluster.plain_objects import PlainObjects
from cluster.s3_client import s3_client
from cluster.s3_objects import S3Objects
from cluster.store_access import S3_PROTOCOLS, Access
from cluster.store_errors import ANOTHER_PLACE, FAILURES, Action, store_failure
from cluster.traffic import Traffic
from conf.errors import (
    CommitConflict,
    CommitUnknown,
    ConfigError,
    CorruptOutput,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from conf.schema import RunConfig
from conf.secrets import without_secrets

T = TypeVar("T")
Objects = LocalFiles | S3Objects | PlainObjects
_DEFAULT = Access()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object in a listing: its key below the root and its size in bytes."""

    key: str
    bytes: int


class Store:
    """Objects below one URL. Safe to use from several threads.

    Invariant: ``put_if_absent`` never changes an existing object; readers never see part of one,
    and see at once what others wrote. ``traffic`` counts the requests to a store that is no local
    folder, those of copies with another patience too.
    """

    def __init__(self, url: str, access: Access = _DEFAULT) -> None:
        self.url = url
        self._access = access
        self._objects, self._root = open_objects(url, access)
        self.traffic = Traffic()

    @classmethod
    def of(cls, config: RunConfig, *, patience_s: float | None = None) -> Self:
        """The output's store, with the job's patience or less.

        Raises:
            ConfigError: it cannot be reached in the way that the configuration says.
        """
        access = Access.of(config.storage)
        if patience_s is not None:
            access = replace(access, patience_s=min(patience_s, access.patience_s))
        return cls(config.output.path, access)

    def with_patience(self, patience_s: float) -> Self:
        """The same store, asked again for so long."""
        other = copy.copy(self)
        other._access = replace(self._access, patience_s=patience_s)
        other._objects, other._root = open_objects(self.url, other._access)
        return other

    def below(self, folder: str) -> Self:
        """The same store, reached in the same way, with its root at one of its folders."""
        other = copy.copy(self)
        other.url = f"{self.url.rstrip('/')}/{folder}"
        other._root = self._at(folder)
        return other

    def elsewhere(self, url: str) -> Self:
        """Another store, reached in the same way and asked for as long.

        Raises:
            ConfigError: it cannot be reached in this way.
        """
        return type(self)(url, self._access)

    def path(self, key: str) -> str:
        """The key as a path of its file system, or as a URL, for messages."""
        mark = "s3://" if isinstance(self._objects, S3Objects) else ""
        return f"{mark}{self._at(key)}"

    @property
    def patience_s(self) -> float:
        """How long an operation is tried again."""
        return self._access.patience_s

    @property
    def local_root(self) -> Path | None:
        """The root folder where the store is a local one."""
        return Path(self._root) if isinstance(self._objects, LocalFiles) else None

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write a new object; writing the same bytes again is no error.

        Raises:
            CommitConflict: the key holds other content; nothing was changed.
            CommitUnknown: the write may have landed, and re-reading did not answer either.
            StoreFull, StoreRefused: it did not land.
            StoreUnavailable: it was not seen to land in time. On a remote store it may land still:
                whoever named rows in it must treat it as unknown.
        """
        began_s = time.monotonic()
        self._retrying("write", key, lambda: self._create(self._objects.create, key, data))
        self.traffic.put_took(time.monotonic() - began_s)

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object that is derived from others (reports, indexes)."""
        self._retrying("write", key, lambda: self._objects.replace(self._at(key), data))

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is no such key."""
        data = self._retrying("read", key, lambda: self._objects.read(self._at(key)))
        self._received(data)
        return data

    def exists(self, key: str) -> bool:
        """Whether the key exists."""
        return self._retrying("read", key, lambda: self._objects.exists(self._at(key)))

    def open(self, key: str) -> BinaryIO:
        """A seekable binary file for reading the object in place.

        Raises:
            CorruptOutput: it is missing.
        """

        def again(read: Callable[[], bytes]) -> bytes:
            data = self._retrying("read", key, read)
            self._received(data)
            return data

        def open_it() -> BinaryIO:
            try:
                return self._objects.open(self._at(key), again)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise CorruptOutput(f"{self.path(key)} is missing") from error

        return self._retrying("read", key, open_it)

    def listing(self, prefix: str) -> list[Entry]:
        """The objects directly inside the folder ``prefix`` (of bounded size), sorted by key."""
        return self.inside(prefix)[0]

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders directly inside ``prefix``, sorted."""
        return self.inside(prefix)[1]

    def inside(self, prefix: str, names: Names | None = None) -> tuple[list[Entry], list[str]]:
        """The objects and the names of the folders directly inside ``prefix``, both sorted.

        Args:
            names: only these; memory grows with them and not with the folder, except on a file
                system that fsspec lists as a whole (neither S3 nor a local folder).
        """
        folder = self._at(prefix).rstrip("/")
        found, folders = self._retrying(
            "read", prefix, lambda: self._objects.listing(folder, names), charged="write"
        )
        below = f"{prefix.strip('/')}/".lstrip("/")
        entries = [Entry(key=f"{below}{name}", bytes=size) for name, size in found]
        return sorted(entries, key=lambda entry: entry.key), sorted(folders)

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self._retrying("write", key, lambda: self._objects.delete(self._at(key)), charged=None)

    def probe(self, name: str = "output.path") -> None:
        """Prove, before anything starts, that the store can be written and can put-if-absent, large
        objects too.

        Args:
            name: the key that says where it is, for people.

        Raises:
            StoreRefused: it cannot, and why.
        """
        key = f".probe-{secrets.token_hex(6)}"
        try:
            self.put_if_absent(key, b"one")
            try:
                self.put_if_absent(key, b"two")
            except CommitConflict:
                self._probe_parts(key, name)
                return
            raise self._cannot("", name)
        except StoreRefused as error:
            said = str(error).replace(ANOTHER_PLACE, f"choose another {name}")
            raise StoreRefused(said) from error
        except StoreFull as error:
            raise StoreRefused(f"{name} {self._shown} is full: {error}") from error
        except (StoreUnavailable, CommitUnknown) as error:
            raise StoreRefused(f"cannot write to {name} {self._shown}: {error}") from error
        finally:
            self._remove_probe(key)

    def refuse_unwritable(self, name: str = "output.path") -> None:
        """What of ``probe`` can be told without writing: whether a local folder may be written.

        Raises:
            StoreRefused: it may not.
        """
        root = self.local_root
        if root is None:
            return
        place = next(path for path in (root, *root.parents) if os.path.exists(path))
        if not place.is_dir():
            why = f"{place} is no folder"
        elif not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            why = f"this user may not write in {place}"
        else:
            return
        raise StoreRefused(f"cannot write {self.url}: {why}; choose another {name}")

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    @property
    def _shown(self) -> str:
        return without_secrets(self.url)

    def _probe_parts(self, key: str, name: str) -> None:
        if not isinstance(self._objects, S3Objects):
            return
        in_parts = self._objects.create_in_parts
        try:
            self._retrying("write", key, lambda: self._create(in_parts, key, b"three"))
        except CommitConflict:
            return
        raise self._cannot("that was uploaded in parts ", name)

    def _cannot(self, how: str, name: str) -> StoreRefused:
        return StoreRefused(
            f"{self._shown} overwrote an existing object {how}although asked not to: a store "
            f"without put-if-absent can promise nothing; choose another {name}"
        )

    def _remove_probe(self, key: str) -> None:
        try:
            self.delete(key)
        except (StoreUnavailable, StoreRefused):
            return

    def _create(self, create: Callable[[str, bytes], None], key: str, data: bytes) -> None:
        """One try of a put-if-absent, settled by what the key holds where the try does not tell."""
        try:
            create(self._at(key), data)
        except FAILURES as error:
            if not self._objects.replies_get_lost and not isinstance(error, FileExistsError):
                raise
            self._settle(key, data, error)

    def _settle(self, key: str, data: bytes, error: Exception) -> None:
        path, taken = self.path(key), isinstance(error, FileExistsError)
        failure = store_failure(error, "write", path)
        if not taken and not isinstance(failure, StoreUnavailable):
            raise failure from error
        try:
            found = self._objects.read(self._at(key))
        except FAILURES as unread:
            raise CommitUnknown(f"{path}: the write may have landed ({failure})") from unread
        if found is None:
            raise failure from error
        if found != data:
            raise CommitConflict(f"{path} exists with other content") from error

    def _received(self, data: bytes | None) -> None:
        if data is not None and self.local_root is None:
            self.traffic.add(read_bytes=len(data))

    def _retrying(
        self,
        action: Action,
        key: str,
        operation: Callable[[], T],
        *,
        charged: Action | EllipsisType | None = ...,
    ) -> T:
        """Try again and again; each try is ``charged`` as the action, as another, or not at all."""
        kind = action if isinstance(charged, EllipsisType) else charged
        remote = self.local_root is None

        def counted() -> T:
            if remote and kind is not None:
                self.traffic.add(writes=kind == "write", reads=kind == "read")
            return operation()

        return patiently(
            counted,
            patience_s=self.patience_s,
            failure_of=lambda error: store_failure(error, action, self.path(key)),
            retrying=self.traffic.retried,
        )


def open_objects(url: str, access: Access) -> tuple[Objects, str]:
    """The objects of a URL's file system, and the URL as a path of it.

    Raises:
        ConfigError: this URL, or this way to reach it, cannot be used.
    """
    options = access.file_system_options(url)
    shown = without_secrets(url)
    try:
        if get_protocol(url) in S3_PROTOCOLS:
            root = str(fsspec.get_filesystem_class("s3")._strip_protocol(url))
            return S3Objects(s3_client(options)), root
        fs, found = fsspec.core.url_to_fs(url, **options)
        root = str(found).rstrip("/")
        if isinstance(fs, LocalFileSystem):
            return LocalFiles(Path(root)), root
        return PlainObjects(fs), root
    except FAILURES as error:
        raise store_failure(error, "read", shown) from error
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(
            f"cannot use '{shown}' as a store: {without_secrets(str(error))}"
        ) from error
