"""Objects of an S3 bucket, request by request.

s3fs holds the session, the event loop and the credentials; its own file-system verbs are not used
where they would cache, list parent folders, hide an answer's code or drop a condition.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from fsspec.asyn import sync

from cluster.names import Names
from cluster.range_file import range_file
from cluster.s3_parts import PartsUpload
from cluster.store_errors import FAILURES, response_of

Retrying = Callable[[Callable[[], bytes]], bytes]
"""Runs one try of a read, again where it may pass."""
LARGEST_PUT_BYTES = 128 * 2**20
"""Larger objects are uploaded in parts. Not smaller ones: not every store that can put-if-absent is
as exact when parts are completed (SeaweedFS 4.48 lets several racing ones win)."""
_NEW = {"IfNoneMatch": "*"}


class S3Objects:
    """Objects by path (``bucket/key``). Safe to use from several threads.

    Every call is one try; failures are any of ``store_errors.FAILURES``, and a write that failed
    may have landed all the same.
    """

    replies_get_lost = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._parts = PartsUpload(fs)

    def create(self, path: str, data: bytes) -> None:
        """Write a new object.

        Raises:
            FileExistsError: the key is taken; by whom and with what is not known.
        """
        self._creating(path, lambda: self._write(path, data, _NEW))

    def create_in_parts(self, path: str, data: bytes) -> None:
        """As ``create``, but the way large objects go."""
        bucket, key = _split(path)
        self._creating(path, lambda: self._parts.write(bucket, key, data, _NEW))

    def replace(self, path: str, data: bytes) -> None:
        """Write an object or replace it."""
        self._write(path, data, {})

    def read(self, path: str) -> bytes | None:
        """All of an object, None where there is none (but for a bucket that is not there)."""
        try:
            # one plain GET: the answer to a HEAD would not say why it was refused
            data: bytes = self._fs.cat_file(path, max_concurrency=1)
        except FileNotFoundError as error:
            if response_of(error)[0] == "NoSuchBucket":
                raise
            return None
        return data

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        return self._head(path) is not None

    def open(self, path: str, retrying: Retrying) -> BinaryIO:
        """A seekable file that fetches what is read, each time as patiently as ``retrying``.

        Raises:
            FileNotFoundError: there is none.
        """
        head = self._head(path)
        if head is None:
            raise FileNotFoundError(path)
        size, etag = int(head["ContentLength"]), str(head.get("ETag", ""))

        def fetch(start: int, end: int) -> bytes:
            return retrying(lambda: self._read_range(path, start, end, etag))

        return range_file(path, size=size, fetch=fetch)

    def listing(
        self, path: str, names: Names | None = None
    ) -> tuple[list[tuple[str, int]], list[str]]:
        """The objects directly inside a folder with their sizes, and its folders; only ``names``,
        and no pages before and behind them."""
        bucket, key = _split(path)
        prefix = f"{key.rstrip('/')}/" if key.strip("/") else ""
        begin = {} if names is None else {"StartAfter": f"{prefix}{names.after}"}
        files: list[tuple[str, int]] = []
        folders: list[str] = []
        for page in self._pages(Bucket=bucket, Prefix=prefix, Delimiter="/", **begin):
            objects = [
                (str(item["Key"])[len(prefix) :], int(item["Size"]))
                for item in page.get("Contents", [])
            ]
            below = [
                str(item["Prefix"])[len(prefix) :].rstrip("/")
                for item in page.get("CommonPrefixes", [])
            ]
            files += [(n, size) for n, size in objects if n and (names is None or n in names)]
            folders += [name for name in below if names is None or name in names]
            last = max([name for name, _ in objects[-1:]] + below[-1:], default="")
            if names is not None and last >= names.before:
                break
        return files, folders

    def kind(self, path: str) -> str | None:
        """``file``, ``directory`` (something lies below it) or None."""
        if path.partition("/")[2] and self.exists(path):
            return "file"
        bucket, key = _split(path)
        prefix = f"{key.rstrip('/')}/" if key.strip("/") else ""
        page = self._call("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return "directory" if page.get("Contents") else None

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is no error."""
        bucket, key = _split(path)
        self._call("delete_object", Bucket=bucket, Key=key)

    def _call(self, operation: str, **arguments: Any) -> Any:
        return self._fs.call_s3(operation, **arguments)

    def _head(self, path: str) -> Any:
        bucket, key = _split(path)
        try:
            return self._call("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        except FAILURES as error:
            if response_of(error)[1] in (400, 403):  # the answer to a HEAD has no body to say why
                self._call("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
            raise

    def _read_range(self, path: str, start: int, end: int, etag: str) -> bytes:
        """Bytes of one version of an object.

        Raises:
            OSError: EBUSY, it is another version by now.
        """
        bucket, key = _split(path)
        condition = {"IfMatch": etag} if etag else {}

        async def fetch() -> bytes:
            answer = await self._fs._call_s3(
                "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **condition
            )
            try:
                data: bytes = await answer["Body"].read()
            finally:
                answer["Body"].close()
            return data

        found: bytes = sync(self._fs.loop, fetch)
        return found

    def _pages(self, **arguments: Any) -> Iterator[Any]:
        while True:
            page = self._call("list_objects_v2", **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def _creating(self, path: str, write: Callable[[], None]) -> None:
        try:
            write()
        except FAILURES as error:
            if response_of(error)[1] == 412:
                raise FileExistsError(errno.EEXIST, f"{path} exists") from error
            raise

    def _write(self, path: str, data: bytes, condition: dict[str, str]) -> None:
        bucket, key = _split(path)
        if len(data) > LARGEST_PUT_BYTES:
            self._parts.write(bucket, key, data, condition)
            return
        self._call("put_object", Bucket=bucket, Key=key, Body=data, **condition)


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key
