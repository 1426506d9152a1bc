"""How the checker reads an output: plainly, with nothing of the product's code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError


class Bucket(Protocol):
    """The objects of one output by their keys in it."""

    def listing(self, prefix: str = "") -> Iterator[str]:
        """All keys that begin so."""

    def read(self, key: str) -> bytes | None:
        """An object's bytes, None where there is no such key."""


class FolderBucket:
    """An output in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def listing(self, prefix: str = "") -> Iterator[str]:
        for path in sorted(self._root.rglob("*")):
            key = path.relative_to(self._root).as_posix()
            if path.is_file() and key.startswith(prefix):
                yield key

    def read(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None


class S3Bucket:
    """An output below ``root`` of an S3 bucket."""

    def __init__(self, client: Any, bucket: str, root: str) -> None:
        self._client = client
        self._bucket = bucket
        self._root = f"{root.strip('/')}/"

    def listing(self, prefix: str = "") -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._root + prefix
        )
        for page in pages:
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(self._root)

    def read(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._root + key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        body: bytes = answer["Body"].read()
        return body


def s3_client(
    endpoint_url: str, access_key: str, secret_key: str, config: Config | None = None
) -> Any:
    """botocore's own client, for path-style addresses."""
    path_style = Config(s3={"addressing_style": "path"})
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=path_style.merge(config) if config else path_style,
    )
