"""Input files: which ones there are, how to open them, and how to tell that one has changed.

Owns fsspec for the input side. Knows nothing of what is inside a file.
"""

from __future__ import annotations

import errno
import glob
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Self, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from cluster.patience import patiently
from cluster.plain_objects import PlainObjects
from cluster.plan_file import STAGED_MARK
from cluster.s3_client import s3_client
from cluster.s3_objects import S3Objects
from cluster.store import Store
from cluster.store_access import LOOK_S, S3_PROTOCOLS, Access
from cluster.store_errors import FAILURES, response_of, store_failure
from conf.errors import CorruptOutput, ImageMillError, InputChanged, InputError, StoreRefused
from conf.schema import RunConfig

T = TypeVar("T")
ENDINGS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
}
"""File ending -> format."""

_PROBE_BYTES = 2**20
_VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a file was when it was looked at: its size in bytes and a digest."""

    bytes: int
    digest: str


def format_of(file: str, asked: str) -> str:
    """The format of ``file``: what was asked for, or what its ending tells.

    Raises:
        InputError: ``asked`` is auto and the ending tells nothing.
    """
    if asked != "auto":
        return asked
    found = _format_by_ending(file)
    if found is None:
        raise InputError(
            f"cannot tell the format of {file} by its ending; expected one of "
            f"{', '.join(ENDINGS)}. Say it with input.format=parquet, jsonl or csv"
        )
    return found


def input_failure(error: Exception, file: str) -> ImageMillError:
    """The error of our tree for what a file system raised about ``file``."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    code, status = response_of(error)
    if code != "NoSuchBucket" and isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputChanged(f"{file} is gone ({reason}); it was there when the input was listed")
    if status == 412 or (not code and getattr(error, "errno", None) == errno.EBUSY):
        return InputChanged(f"{file} changed while it was read: {reason}")
    failure = store_failure(error, "read", file)
    return InputError(str(failure)) if isinstance(failure, StoreRefused) else failure


class InputFiles:
    """Finds, opens and fingerprints input files; ``store`` holds what was staged."""

    def __init__(self, *, access: Access | None = None, store: Store | None = None) -> None:
        patience_s = store.patience_s if store else LOOK_S
        self._access = replace(access or Access(), patience_s=patience_s)
        self._store = store

    @classmethod
    def of(cls, config: RunConfig, store: Store | None) -> Self:
        """The input of a job; ``storage.*`` holds for it too if it is on a like store."""
        same = get_protocol(config.input.path) == get_protocol(config.output.path)
        return cls(access=Access.of(config.storage) if same else None, store=store)

    def expand(self, path: str, asked_format: str = "auto") -> list[str]:
        """The files that ``path`` (a file, folder or glob) stands for, sorted.

        Folders are searched through; hidden files and those that begin with ``_`` are left out, and
        so is everything that does not end like the asked format.

        Raises:
            InputError: it does not exist, matches nothing or cannot be read.
        """
        fs, root = self._resolve(path)
        kind, found = self._retrying(path, lambda: _found(fs, root))
        if kind == "file":
            return [_named(fs, root, path)]
        if kind is None and not glob.has_magic(root):
            raise InputError(f"input.path {path} does not exist")
        wanted = sorted({item for item in found if _wanted(item, asked_format)})
        if not wanted:
            endings = sorted(e for e, f in ENDINGS.items() if asked_format in ("auto", f))
            where = "holds" if kind == "directory" else "matches"
            raise InputError(f"input.path {path} {where} no file that ends in {', '.join(endings)}")
        return sorted(_named(fs, item, path) for item in wanted)

    def open(self, file: str) -> BinaryIO:
        """A seekable binary file; ``file`` is an ``InputFile.file`` or what ``expand`` gave.

        Raises:
            InputChanged: it is gone.
            InputError: it may not be read.
            StoreUnavailable: its store did not answer.
        """
        if file.startswith(STAGED_MARK):
            return self._open_staged(file.removeprefix(STAGED_MARK))
        fs, path = self._resolve(file)

        def again(read: Callable[[], bytes]) -> bytes:
            return self._retrying(file, read)

        return self._retrying(file, lambda: _objects_of(fs).open(path, again))

    def fingerprint(self, file: str) -> Fingerprint:
        """sha256 over the size and the first and last MiB, and for larger files over what the store
        says of the version (ETag, or time of the last change).

        Raises:
            InputChanged, InputError, StoreUnavailable: as ``open``.
        """
        fs, path = self._resolve(file)

        def look() -> Any:
            fs.invalidate_cache(path)
            return fs.info(path)

        info = self._retrying(file, look)
        if info.get("size") is None:
            raise InputError(f"{file}: its server does not tell its size; copy it first")
        size = int(info["size"])
        with self.open(file) as opened:
            digest = self._retrying(file, lambda: _digest(opened, size))
        if size > 2 * _PROBE_BYTES:
            version = next((info[key] for key in _VERSION_KEYS if info.get(key)), "")
            digest.update(str(version).encode())
        return Fingerprint(bytes=size, digest=digest.hexdigest())

    def _resolve(self, path: str) -> tuple[Any, str]:
        try:
            options = self._access.file_system_options(path)
            if get_protocol(path) in S3_PROTOCOLS:
                fs = s3_client(options)
                return fs, str(fs._strip_protocol(path))
            fs, root = fsspec.core.url_to_fs(path, **options)
        except (ValueError, TypeError, ImportError) as error:
            raise InputError(f"cannot read input.path {path}: {error}") from error
        except FAILURES as error:
            raise input_failure(error, path) from error
        return fs, str(root)

    def _retrying(self, file: str, operation: Callable[[], T]) -> T:
        return patiently(
            operation,
            patience_s=self._access.patience_s,
            failure_of=lambda error: input_failure(error, file),
        )

    def _open_staged(self, key: str) -> BinaryIO:
        if self._store is None:
            raise InputError(f"{key} is staged in an output that was not given")
        try:
            return self._store.open(key)
        except CorruptOutput as error:
            raise InputChanged(f"{self._store.path(key)} is gone; it was staged there") from error


def _digest(opened: BinaryIO, size: int) -> Any:
    opened.seek(0)
    digest = hashlib.sha256(f"{size}:".encode())
    digest.update(opened.read(_PROBE_BYTES))
    if size > _PROBE_BYTES:
        opened.seek(max(_PROBE_BYTES, size - _PROBE_BYTES))
        digest.update(opened.read(_PROBE_BYTES))
    return digest


def _found(fs: Any, root: str) -> tuple[str | None, list[str]]:
    """What ``root`` is, and the files that it stands for if it is a folder or a pattern."""
    kind = _kind(fs, root)
    if kind == "directory":
        return kind, list(_below(fs, root))
    return kind, list(_matching(fs, root)) if kind is None and glob.has_magic(root) else []


def _objects_of(fs: Any) -> S3Objects | PlainObjects:
    return S3Objects(fs) if _is_s3(fs) else PlainObjects(fs)


def _is_s3(fs: Any) -> bool:
    protocol = fs.protocol
    return (protocol if isinstance(protocol, str) else protocol[0]) in S3_PROTOCOLS


def _kind(fs: Any, root: str) -> str | None:
    if _is_s3(fs):
        return S3Objects(fs).kind(root)
    try:
        return str(fs.info(root)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def _below(fs: Any, root: str) -> Iterator[str]:
    """The files below a folder, but for those that are hidden or begin with ``_`` on the way."""
    for name in fs.find(root):
        relative = str(name)[len(root.rstrip("/")) :]
        if not any(part.startswith((".", "_")) for part in relative.split("/")):
            yield str(name)


def _matching(fs: Any, pattern: str) -> Iterator[str]:
    """The files that match, and those below the folders that match."""
    parts = pattern.split("/")
    literal = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    for name, info in fs.glob(pattern, detail=True).items():
        if any(part.startswith((".", "_")) for part in str(name).split("/")[literal:]):
            continue
        if info["type"] == "directory":
            yield from _below(fs, str(name))
        else:
            yield str(name)


def _format_by_ending(file: str) -> str | None:
    name = file.split("::", 1)[0].rsplit("/", 1)[-1].lower()
    return next((found for ending, found in ENDINGS.items() if name.endswith(ending)), None)


def _wanted(file: str, asked: str) -> bool:
    found = _format_by_ending(file)
    return found is not None if asked == "auto" else found == asked


def _named(fs: Any, name: str, given: str) -> str:
    """The name to open a found file by: a plain absolute path, or a URL like the given one."""
    if isinstance(fs, LocalFileSystem):
        return name
    rest = given.split("::", 1)[1:]
    return "::".join([str(fs.unstrip_protocol(name)), *rest])
