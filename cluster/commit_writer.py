"""Turns a batch of finished rows into objects and one commit record.

Order matters: images, then the tables that name them, then the commit that names the tables. A
crash between any two leaves objects that no commit names, which count for nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Sequence

import pyarrow as pa

from cluster import layout
from cluster.carried_values import json_rows, without_maps
from cluster.energy import PowerMeter
from cluster.ledger import Attribution, Payer, image_lines, ledger_table
from cluster.lifetime import utc_now
from cluster.money import LedgerLine
from cluster.reader import ShardRows
from cluster.records import Commit, ObjectRef, Stamp, ranges_of
from cluster.shard_log import ShardLog
from cluster.shard_work import Batch, FinishedImage, ShardWork
from cluster.store import Store
from cluster.tables import (
    Made,
    metadata_table,
    quarantine_table,
    to_parquet,
    with_images,
)
from conf.schema import EnergyConfig, OutputConfig
from operators.engine import EngineInfo


class CommitWriter:
    """Writes commits of one worker. A write that failed is never tried again under its epoch."""

    def __init__(
        self,
        store: Store,
        output: OutputConfig,
        *,
        engine: EngineInfo,
        payer: Payer,
        attribution: Attribution,
        energy: EnergyConfig,
    ) -> None:
        self._store = store
        self._output = output
        self._engine = engine
        self._payer = payer
        self._attribution = attribution
        self._energy = energy
        self._meter = PowerMeter(energy, payer.gpus, payer.share)

    def write(
        self, log: ShardLog, work: ShardWork, rows: ShardRows | None, batch: Batch, stamp: Stamp
    ) -> Commit:
        """Write everything that the batch needs, the commit record last.

        Raises:
            LeaseLost, CommitUnknown, StoreUnavailable, StoreFull: the batch may count or not; the
            shard's lease must be given back, since only re-reading its log can tell.
        """
        made = Made(
            engine=self._engine,
            price=self._payer.price,
            worker=self._payer.worker,
            attempt=log.attempt,
            image_format=self._output.image,
            power=self._meter.read(),
            energy=self._energy,
        )
        objects, metadata = self._put_images(log, work, rows, batch, made)
        lines = self._lines(work, rows, batch)
        commit = Commit(
            shard_id=work.shard.shard_id,
            epoch=log.epoch,
            seq=log.next_seq,
            attempt=log.attempt,
            rows=ranges_of(batch.rows),
            quarantined=ranges_of(row.offset for row in batch.rejected),
            images=len(batch.images),
            image_bytes=sum(image.bytes for image in batch.images),
            device_ns=sum(image.device_ns for image in batch.images),
            amount_nano=sum(line.amount_nano or 0 for line in lines),
            metadata=metadata,
            quarantine=self._put_quarantine(log, work, batch),
            ledger=self._put_table(log, "ledger", ledger_table(lines, self._attribution))
            if lines
            else None,
            objects=objects,
            stamp=stamp,
            written_at=utc_now(),
        )
        log.commit(commit)
        return commit

    def _lines(self, work: ShardWork, rows: ShardRows | None, batch: Batch) -> list[LedgerLine]:
        if not batch.images:
            return []
        assert rows is not None, "images come only from rows that were read"
        tags = rows.tags([work.offset_of(image.request.row_id) for image in batch.images])
        return image_lines(batch.images, tags, model=self._engine.model, payer=self._payer)

    def _put_images(
        self, log: ShardLog, work: ShardWork, rows: ShardRows | None, batch: Batch, made: Made
    ) -> tuple[tuple[ObjectRef, ...], ObjectRef | None]:
        """Containers and metadata; in the ``files`` format the images are objects already."""
        if not batch.images:
            return (), None
        assert rows is not None, "images come only from rows that were read"
        offsets = [work.offset_of(image.request.row_id) for image in batch.images]
        labels = [rows.label(offset) for offset in offsets]
        extras = rows.extras.take(pa.array(offsets, pa.int64()))

        def table(members: Sequence[str | None], keys: Sequence[str]) -> pa.Table:
            return metadata_table(batch.images, labels, extras, members, keys, made)

        count = len(batch.images)
        if self._output.format == "files":
            metadata = table([None] * count, [image.key for image in batch.images])
            return (), self._put_table(log, "metadata", metadata)
        names = [image.name for image in batch.images]
        if self._output.format == "webdataset":
            key = self._key(log, "shards", "tar")
            metadata = table(names, [key] * count)
            container = self._put(key, _tar(batch.images, metadata))
        else:
            key = self._key(log, "data", "parquet")
            metadata = table(names, [key] * count)
            carried = with_images(without_maps(metadata), batch.images)
            container = self._put(key, to_parquet(carried))
        return (container,), self._put_table(log, "metadata", metadata)

    def _put_quarantine(self, log: ShardLog, work: ShardWork, batch: Batch) -> ObjectRef | None:
        if not batch.rejected:
            return None
        shard = work.shard
        table = quarantine_table(
            batch.rejected,
            shard_id=shard.shard_id,
            file=shard.file,
            first_row=shard.first_row,
            first_row_id=shard.first_row_id,
            worker=self._payer.worker,
            attempt=log.attempt,
            at_ns=time.time_ns(),
        )
        return self._put_table(log, "quarantine", table)

    def _key(self, log: ShardLog, folder: str, extension: str) -> str:
        return layout.attempt_object(folder, log.shard_id, log.epoch, log.next_seq, extension)

    def _put_table(self, log: ShardLog, folder: str, table: pa.Table) -> ObjectRef:
        return self._put(self._key(log, folder, "parquet"), to_parquet(table))

    def _put(self, key: str, data: bytes) -> ObjectRef:
        self._store.put_if_absent(key, data)
        return ObjectRef(key=key, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _tar(images: Sequence[FinishedImage], metadata: pa.Table) -> bytes:
    """A WebDataset shard: for each image the picture, its prompt and its metadata, adjacent."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for image, row in zip(images, json_rows(metadata), strict=True):
            stem = image.name.rsplit(".", 1)[0]
            described = json.dumps(row, allow_nan=False, sort_keys=True).encode()
            assert image.data is not None, "images of a tar are kept until their commit"
            _add(tar, image.name, image.data)
            _add(tar, f"{stem}.json", described)
            _add(tar, f"{stem}.txt", image.request.prompt.encode())
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
