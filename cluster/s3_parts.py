"""Large objects of S3: uploaded in parts, and complete all at once or not at all."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster.store_errors import FAILURES

PART_BYTES = 16 * 2**20
"""Size of a part (S3 wants 5 MiB at least)."""
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 4

_Upload = dict[str, str]
_FAILED: tuple[type[BaseException], ...] = (*FAILURES, KeyboardInterrupt)


class PartsUpload:
    """Multipart uploads. One that failed is aborted, at once or, where the store did not answer
    that either, before the next one begins: parts that nobody sees cost money."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._left: list[_Upload] = []
        self._lock = threading.Lock()

    def write(self, bucket: str, key: str, data: bytes, condition: Mapping[str, str]) -> None:
        """Upload all parts and complete them under ``condition``; one try."""
        self._abort_left()
        begun = self._fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        upload = {"Bucket": bucket, "Key": key, "UploadId": str(begun["UploadId"])}
        try:
            parts = self._put_parts(upload, data)
            self._fs.call_s3(
                "complete_multipart_upload",
                **upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except _FAILED:
            self._abort(upload)
            raise

    def _put_parts(self, upload: _Upload, data: bytes) -> list[dict[str, Any]]:
        size = max(PART_BYTES, math.ceil(len(data) / _MOST_PARTS))
        view = memoryview(data)
        starts = range(0, max(1, len(data)), size)

        def put(number: int) -> dict[str, Any]:
            body = bytes(view[starts[number] : starts[number] + size])
            done = self._fs.call_s3("upload_part", **upload, PartNumber=number + 1, Body=body)
            return {"PartNumber": number + 1, "ETag": done["ETag"]}

        with ThreadPoolExecutor(min(_PARTS_AT_ONCE, len(starts))) as threads:
            return list(threads.map(put, range(len(starts))))

    def _abort(self, upload: _Upload) -> None:
        try:
            self._fs.call_s3("abort_multipart_upload", **upload)
        except FileNotFoundError:
            return
        except FAILURES:
            with self._lock:
                self._left.append(upload)

    def _abort_left(self) -> None:
        with self._lock:
            left, self._left = self._left, []
        for upload in left:
            self._abort(upload)
