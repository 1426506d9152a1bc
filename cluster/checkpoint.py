"""Checkpoints: what sealed shards come to, folded into one Parquet file under the next number.

Derived data: the newest one that can be read spares its readers the records of the shards in it,
and whatever it lacks is read from the shards themselves. Knows nothing of plans and retries; which
rows still hold is ``cluster.settled``'s. Memory is bounded by a row group, the seals that are added
and, while it is written, the file itself (about 30 bytes a shard).
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import layout
from cluster.plan_file import GROUP_ROWS
from cluster.records import Stamp, stamp_from_json, to_json
from cluster.sealed_shard import SealedShard
from cluster.store import Store
from cluster.tables import as_numpy
from conf.errors import (
    CommitConflict,
    CorruptOutput,
    ImageMillError,
    StoreRefused,
    StoreUnavailable,
)

log = logging.getLogger("imagemill")
SCHEMA = pa.schema(
    [
        pa.field("shard_id", pa.int64(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("committed", pa.int64(), nullable=False),
        pa.field("quarantined", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("image_bytes", pa.int64(), nullable=False),
        pa.field(
            "shares",
            pa.list_(
                pa.struct(
                    [
                        pa.field("worker", pa.string()),
                        pa.field("used_ns", pa.int64()),
                        pa.field("used_amount", pa.int64()),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""One row a sealed shard, in ascending order of ``shard_id``; the names are ``SealedShard``'s."""
_VERSION = "1"
_VERSION_KEY = b"imagemill.schema"
_STAMPS_KEY = b"imagemill.stamps"
_NAME = re.compile(rf"{layout.CHECKPOINTS}(\d+)\.parquet")
_KEPT = 2
_TRIES = 3
_COPIED_BYTES = 2**20


class Checkpoint:
    """A checkpoint that was read whole and found sound. Safe to use from several threads.

    It is a copy in a nameless file on this machine, so that its object may be replaced meanwhile.

    Raises:
        CorruptOutput: it is damaged, or of another version.
    """

    def __init__(self, number: int, file: pa.NativeFile) -> None:
        self.number = number
        self._file = file
        try:
            self.shards, self.stamps = self._checked()
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise _damaged(number, str(error)) from error

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, a row group at a time; only some ``columns`` where they are named."""
        with pq.ParquetFile(self._file, page_checksum_verification=True) as file:
            for group in range(file.metadata.num_row_groups):
                yield file.read_row_group(group, columns=columns, use_threads=False)

    def _checked(self) -> tuple[int, tuple[Stamp, ...]]:
        with pq.ParquetFile(self._file) as file:
            shards: int = file.metadata.num_rows
            metadata = file.schema_arrow.metadata or {}
            version = metadata.get(_VERSION_KEY, b"none").decode()
            if version != _VERSION:
                raise _damaged(self.number, f"it has schema {version}; expected {_VERSION}")
            if not file.schema_arrow.equals(SCHEMA):
                raise _damaged(self.number, f"its columns are not those of schema {_VERSION}")
        last = -1
        for table in self.tables():
            ids = np.concatenate([[last], as_numpy(table["shard_id"])])
            if (np.diff(ids) <= 0).any():
                raise _damaged(self.number, "its shards are not in order")
            last = int(ids[-1])
        key = layout.checkpoint(self.number)
        lines = metadata[_STAMPS_KEY].splitlines()
        return shards, tuple(stamp_from_json(line, key) for line in lines)


def _damaged(number: int, problem: str) -> CorruptOutput:
    return CorruptOutput(
        f"{layout.checkpoint(number)} is damaged: {problem}; delete it, since it only repeats what "
        "the shards' own records say"
    )


def numbers(store: Store) -> list[int]:
    """The numbers of all checkpoints, ascending."""
    found = (_NAME.fullmatch(entry.key) for entry in store.listing(layout.CHECKPOINTS))
    return sorted(int(match[1]) for match in found if match)


def read_checkpoint(store: Store, number: int) -> Checkpoint:
    """Copy one checkpoint here and check it.

    Raises:
        CorruptOutput: it is damaged, of another version, or was replaced by newer ones meanwhile.
        StoreUnavailable: it cannot be read.
    """
    key = layout.checkpoint(number)
    try:
        with store.open(key) as raw, tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(raw, copy, _COPIED_BYTES)
            file = _nameless(copy)
    except OSError as error:
        raise StoreUnavailable(f"{store.path(key)} could not be copied: {error}") from error
    return Checkpoint(number, file)


def newest_checkpoint(store: Store, known: Checkpoint | None = None) -> Checkpoint | None:
    """The newest checkpoint that can be read; None where there is none.

    Args:
        known: is returned, and not read again, where it is the newest.
    """
    passable = (CorruptOutput, StoreUnavailable, StoreRefused)
    return _newest_of(store, numbers(store), known, passable)


def _newest_of(
    store: Store,
    found: Sequence[int],
    known: Checkpoint | None,
    passable: tuple[type[ImageMillError], ...],
) -> Checkpoint | None:
    """The newest of the ascending numbers that can be read, past those with ``passable`` errors."""
    for number in reversed(found):
        if known is not None and known.number == number:
            return known
        try:
            return read_checkpoint(store, number)
        except passable as error:
            log.warning(
                "a checkpoint is passed over: %s", error, extra={"event": "checkpoint_unreadable"}
            )
    return None


def add_checkpoint(
    store: Store, seals: Sequence[SealedShard], *, known: Checkpoint | None = None
) -> Checkpoint:
    """Write the newest checkpoint with ``seals`` merged in as the next one, and delete old ones.

    Of two writers of one number the loser merges anew. Only a damaged checkpoint is passed over: on
    an older base than one that just does not answer, what the newer one settles would be dropped.

    Raises:
        CommitConflict: the number was lost again and again.
        StoreUnavailable, StoreFull, StoreRefused, CommitUnknown: it was not written, or it is not
            known; trying again later is safe.
    """
    for _ in range(_TRIES):
        found = numbers(store)
        base = _newest_of(store, found, known, (CorruptOutput,))
        number = max(found, default=0) + 1
        try:
            written = _write(store, number, base, seals)
        except CommitConflict:
            continue
        _delete_old(store, number)
        return written
    raise CommitConflict(f"{store.path(layout.CHECKPOINTS)}: others took {_TRIES} numbers in a row")


def _write(
    store: Store, number: int, base: Checkpoint | None, seals: Sequence[SealedShard]
) -> Checkpoint:
    stamps = {stamp.worker: stamp for stamp in base.stamps} if base else {}
    for share in (share for seal in seals for share in seal.shares):
        known = stamps.get(share.worker)
        if known is None or share.stamp.newer_than(known):
            stamps[share.worker] = share.stamp
    described = b"".join(to_json(stamps[worker]) for worker in sorted(stamps))
    schema = SCHEMA.with_metadata({_VERSION_KEY: _VERSION.encode(), _STAMPS_KEY: described})
    merged = _merged(base.tables() if base else iter(()), _table(seals))
    with tempfile.NamedTemporaryFile() as file:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in _regrouped(merged):
                writer.write_table(table, row_group_size=GROUP_ROWS)
        file.flush()
        file.seek(0)
        store.put_if_absent(layout.checkpoint(number), file.read())
        return Checkpoint(number, _nameless(file))


def _nameless(file: IO[bytes]) -> pa.NativeFile:
    """The file for reading; it lives on after its name is gone."""
    file.flush()
    return pa.OSFile(file.name)


def _delete_old(store: Store, number: int) -> None:
    """Somebody may still read the one before; those behind it are of no use, and do no harm."""
    try:
        for old in numbers(store):
            if old <= number - _KEPT:
                store.delete(layout.checkpoint(old))
    except (StoreUnavailable, StoreRefused) as error:
        log.debug("old checkpoints stay: %s", error, extra={"event": "checkpoint_undeleted"})


def _table(seals: Sequence[SealedShard]) -> pa.Table:
    columns: list[Any] = [
        [getattr(seal, name) for seal in seals] for name in SCHEMA.names if name != "shares"
    ]
    shares = [
        [
            {"worker": s.worker, "used_ns": s.used_ns, "used_amount": s.used_amount}
            for s in seal.shares
        ]
        for seal in seals
    ]
    return _newest_rows(pa.table([*columns, shares], schema=SCHEMA))


def _merged(base: Iterator[pa.Table], fresh: pa.Table) -> Iterator[pa.Table]:
    """Both in one ascending order; of two rows of a shard the newer one stays."""
    for table in base:
        last = table["shard_id"][-1]
        count = pc.sum(pc.less_equal(fresh["shard_id"], last)).as_py() or 0
        yield _newest_rows(pa.concat_tables([table, fresh.slice(0, count)])) if count else table
        fresh = fresh.slice(count)
    yield fresh


def _newest_rows(table: pa.Table) -> pa.Table:
    """Sorted by shard, and of each shard only the row of its last generation and epoch."""
    order = [(name, "ascending") for name in ("shard_id", "generation", "epoch")]
    table = table.sort_by(order)
    ids = as_numpy(table["shard_id"])
    return table.filter(pa.array(np.append(ids[1:] != ids[:-1], True)[: len(ids)]))


def _regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in groups of ``GROUP_ROWS``, so that many merges leave no crumbs."""
    rest = SCHEMA.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table.replace_schema_metadata(None)])
        while rest.num_rows >= GROUP_ROWS:
            yield rest.slice(0, GROUP_ROWS)
            rest = rest.slice(GROUP_ROWS)
    if rest.num_rows:
        yield rest
