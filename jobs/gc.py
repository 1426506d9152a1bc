"""``imagemill gc``: what attempts left behind and no commit counts; shown first, then removed.

An object is removed only if its own key says that an epoch older than its shard's newest opening
wrote it, since nothing of such an epoch can be counted any more. Records, plan, stamps and reports
are never touched. Shards are looked into in blocks, so that memory is bounded by the names of what
4,096 shards wrote (image folders, tables, containers) and of one shard's images.
"""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster import layout
from cluster.names import Names
from cluster.plan_file import PlanReader
from cluster.records import ObjectRef
from cluster.shard_log import ShardState, read_shard_state
from cluster.store import Entry, Store
from cluster.tables import read_parquet
from conf.errors import CorruptOutput
from jobs.figures import plural, size

_SCRATCH_AGE_S = 3600.0
_THREADS = 8
_IMAGES = "images/"
_BLOCK_SHARDS = 4096
"""Shards whose places are listed together. An object store is asked for their range alone; a local
folder is read once a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was removed, or would be in a dry run; ``kept`` attempt objects stay."""

    objects: int
    bytes: int
    kept: int
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """An object, or a folder of images, that one epoch of one shard wrote."""

    shard_id: int
    epoch: int
    key: str
    bytes: int | None


def collect(store: Store, *, dry_run: bool, among: Iterable[int] | None = None) -> Collected:
    """Remove what no commit counts; safe beside a running job.

    Args:
        among: look only into these shards, ascending; None: into all of the plan.

    Raises:
        CorruptOutput: a record or a table that counts cannot be read, so that nobody can tell what
            its shard still needs; nothing of that shard was removed.
    """
    removed = removed_bytes = kept = 0
    shard_ids = range(PlanReader(store).shards) if among is None else among
    found = itertools.chain.from_iterable(_places(store, block) for block in _blocks(shard_ids))
    with ThreadPoolExecutor(_THREADS, "gc") as pool:
        for shard_id, places in itertools.groupby(found, key=lambda place: place.shard_id):
            unwanted, wanted = _sort_out(store, shard_id, list(places))
            kept += wanted
            for entry in unwanted:
                removed, removed_bytes = removed + 1, removed_bytes + entry.bytes
            if not dry_run:
                for _ in pool.map(store.delete, [entry.key for entry in unwanted]):
                    pass
    for path, length in _scratch(store.local_root):
        removed, removed_bytes = removed + 1, removed_bytes + length
        if not dry_run:
            path.unlink(missing_ok=True)
    return Collected(objects=removed, bytes=removed_bytes, kept=kept, dry_run=dry_run)


def collected_lines(collected: Collected, output: str) -> list[str]:
    """The collection for the terminal; ``output`` as the user named it."""
    verb = "would remove" if collected.dry_run else "removed"
    lines = [
        f"{verb} {plural(collected.objects, 'object')} ({size(collected.bytes)}) that no commit "
        f"counts; {collected.kept:,} stay"
    ]
    if collected.dry_run and collected.objects:
        lines.append(f"do it with: imagemill gc {shlex.quote(output)} --delete")
    return lines


def _blocks(shard_ids: Iterable[int]) -> Iterator[list[int]]:
    """So many at a time; the last block may be shorter."""
    left = iter(shard_ids)
    while block := list(itertools.islice(left, _BLOCK_SHARDS)):
        yield block


def _places(store: Store, shard_ids: Sequence[int]) -> list[_Place]:
    """Everything that attempts at some ascending shards wrote, by shard; image folders as one place
    each."""
    ids = frozenset(shard_ids)
    places: list[_Place] = []
    for prefix in layout.ATTEMPT_PREFIXES:
        names = Names(
            after=layout.shard_name(shard_ids[0]),
            before=layout.shard_name(shard_ids[-1] + 1),
            wanted=lambda name: layout.shard_in(name) in ids,
        )
        entries, folders = store.inside(prefix, names)
        if prefix == _IMAGES:
            places += _attempts((f"{prefix}{name}/", None) for name in folders)
        else:
            places += _attempts((entry.key, entry.bytes) for entry in entries)
    return sorted(places, key=lambda place: (place.shard_id, place.key))


def _attempts(found: Iterable[tuple[str, int | None]]) -> Iterator[_Place]:
    """Those that carry a shard and an epoch; anything else is not ours to remove."""
    for key, length in found:
        attempt = layout.attempt_of(key)
        if attempt is not None:
            yield _Place(shard_id=attempt[0], epoch=attempt[1], key=key, bytes=length)


def _sort_out(store: Store, shard_id: int, places: list[_Place]) -> tuple[list[Entry], int]:
    """(what may go, how many objects stay) of one shard.

    The state is read after the listing: whatever was listed belongs to an epoch that it knows. A
    sealed shard's newest opening starts no work, so all of its objects are of older epochs.
    """
    state = read_shard_state(store, shard_id)
    needed: set[str] | None = None
    unwanted: list[Entry] = []
    kept = 0
    for place in places:
        entries = (
            store.listing(place.key)
            if place.bytes is None
            else [Entry(key=place.key, bytes=place.bytes)]
        )
        if place.epoch >= state.epoch:
            kept += len(entries)
            continue
        needed = _needed(store, state) if needed is None else needed
        going = [entry for entry in entries if entry.key not in needed]
        unwanted += going
        kept += len(entries) - len(going)
    return unwanted, kept


def _needed(store: Store, state: ShardState) -> set[str]:
    """Every object that a counted commit names, itself or in its metadata."""
    needed: set[str] = set()
    for counted in state.commits:
        commit = counted.commit
        refs = [commit.metadata, commit.quarantine, commit.ledger, *commit.objects]
        needed |= {ref.key for ref in refs if ref is not None}
        if commit.metadata is not None and not commit.objects:
            needed |= _image_keys(store, commit.metadata, counted.key)
    return needed


def _image_keys(store: Store, ref: ObjectRef, commit_key: str) -> set[str]:
    data = store.get(ref.key)
    try:
        return set(read_parquet(data or b"", ["object"])["object"].to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CorruptOutput(
            f"{ref.key}, named by {commit_key}, cannot be read ({error}): what its shard needs is "
            "not known and nothing of it was removed; see 'imagemill verify'"
        ) from error


def _scratch(root: Path | None) -> Iterator[tuple[Path, int]]:
    """Half-written files and probes that a local store's writers left when they were killed."""
    if root is None:
        return
    oldest_s = time.time() - _SCRATCH_AGE_S
    for path in itertools.chain((root / ".tmp").glob("*"), root.glob(".probe-*")):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and found.st_mtime < oldest_s:
            yield path, found.st_size
