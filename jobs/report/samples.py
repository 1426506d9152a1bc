"""Which images a report shows: a few, spread over the whole job, with bounded memory.

Reads the commit records of as many shards as it takes to find images, then only the metadata tables
and the images of the chosen ones.
"""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.plan_file import PlanReader
from cluster.records import ObjectRef
from cluster.shard_log import ShardState, read_shard_state
from cluster.store import Store
from cluster.tables import read_parquet
from conf.errors import CorruptOutput, StoreUnavailable
from jobs.report.survey import top_reasons
from operators.contact_sheet import thumbnail

_COLUMNS = [
    "image_id",
    "row_id",
    "id",
    "image_index",
    "prompt",
    "negative_prompt",
    "seed",
    "width",
    "height",
    "steps",
    "guidance_scale",
    "sampler",
    "model",
    "object",
    "member",
    "cost",
    "currency",
]
_READ_AHEAD = 16
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image's metadata (column -> value) and its bytes; None where they cannot be read."""

    row: dict[str, Any]
    image: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A shard that has images: each commit's metadata table and its number of images."""

    shard_id: int
    tables: tuple[tuple[ObjectRef, int], ...]

    @property
    def images(self) -> int:
        return sum(count for _, count in self.tables)


def pick_samples(
    store: Store, plan: PlanReader, count: int, *, max_px: int | None = None
) -> list[Sample]:
    """Up to ``count`` images spread over the job, in the order of its rows.

    Args:
        max_px: keep each image as a thumbnail of this size, so that memory is bounded by ``count``
            whatever the images' size; None keeps their bytes as stored.
    """
    found = list(islice(_shards_with_images(store, plan), count))
    samples: list[Sample] = []
    for shard, quota in zip(found, _quotas([s.images for s in found], count), strict=True):
        for table, places in _chosen(shard, quota):
            samples += _read_samples(store, table, places, max_px)
    return sorted(samples, key=_place)


def _place(sample: Sample) -> tuple[int, int]:
    return sample.row["row_id"], sample.row["image_index"]


def spread(count: int) -> Iterator[int]:
    """All of 0 to ``count`` - 1, each once, so that any first few are spread over the whole."""
    stride = max(1, round(count * _GOLDEN))
    while math.gcd(stride, count) > 1:
        stride += 1
    for index in range(count):
        yield index * stride % count


def _shards_with_images(store: Store, plan: PlanReader) -> Iterator[_Found]:
    order = spread(plan.shards) if plan.shards else iter(())
    with ThreadPoolExecutor(_READ_AHEAD, "samples") as pool:
        while chunk := list(islice(order, _READ_AHEAD)):
            for state in pool.map(lambda shard_id: read_shard_state(store, shard_id), chunk):
                found = _with_images(state)
                if found.tables:
                    yield found


def _with_images(state: ShardState) -> _Found:
    commits = [counted.commit for counted in state.commits]
    return _Found(
        shard_id=state.shard_id,
        tables=tuple((c.metadata, c.images) for c in commits if c.metadata and c.images),
    )


def _quotas(images: Sequence[int], count: int) -> list[int]:
    """How many of each shard's images to take: evenly, more of those that have more."""
    quotas = [0] * len(images)
    left = count
    by_size = sorted(range(len(images)), key=lambda place: images[place])
    for behind, place in enumerate(by_size):
        quotas[place] = min(images[place], math.ceil(left / (len(images) - behind)))
        left -= quotas[place]
    return quotas


def _chosen(shard: _Found, quota: int) -> Iterator[tuple[ObjectRef, list[int]]]:
    """The tables that hold ``quota`` images spread over the shard, and their places in them."""
    places = [(2 * i + 1) * shard.images // (2 * quota) for i in range(quota)]
    first = 0
    for table, images in shard.tables:
        inside = [place - first for place in places if first <= place < first + images]
        if inside:
            yield table, inside
        first += images


def _read_samples(
    store: Store, table: ObjectRef, places: list[int], max_px: int | None
) -> list[Sample]:
    data = store.get(table.key)
    if data is None:
        return []
    rows = read_parquet(data, _COLUMNS).take(pa.array(places, pa.int64())).to_pylist()
    images = _read_images(store, rows)
    return [Sample(row=row, image=_shrunk(images.get(row["image_id"]), max_px)) for row in rows]


def _shrunk(image: bytes | None, max_px: int | None) -> bytes | None:
    if image is None or max_px is None:
        return image
    try:
        return thumbnail(image, max_px)
    except ValueError:
        return None


def _read_images(store: Store, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """The image bytes by image id; all rows are of one commit, so of one container if of any."""
    by_member = {row["member"]: row["image_id"] for row in rows if row["member"]}
    if not by_member:
        images = ((row["image_id"], store.get(row["object"])) for row in rows)
        return {image_id: image for image_id, image in images if image is not None}
    key = str(rows[0]["object"])
    read = _from_parquet if key.endswith(".parquet") else _from_tar
    try:
        with store.open(key) as raw:
            return {by_member[name]: data for name, data in read(raw, set(by_member))}
    except (OSError, CorruptOutput, StoreUnavailable, tarfile.TarError, pa.ArrowException):
        return {}


def _from_tar(raw: Any, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=raw, mode="r:") as tar:
        for member in tar:
            if member.name in wanted and (file := tar.extractfile(member)) is not None:
                yield member.name, file.read()


def _from_parquet(raw: Any, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    with pq.ParquetFile(raw) as parquet:
        for batch in parquet.iter_batches(
            batch_size=_READ_AHEAD, columns=["image"], use_threads=False
        ):
            paths = batch.column("image").field("path").to_pylist()
            for place, path in enumerate(paths):
                if path in wanted:
                    yield path, batch.column("image").field("bytes")[place].as_py()


__all__ = ["Sample", "pick_samples", "spread", "top_reasons"]
