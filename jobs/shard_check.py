"""The check of one shard: each row in one state, each named object there and as it was committed.

Reads only the store. Beside the rule of what counts (``cluster.shard_log``) nothing of the writing
side is used: every promise is checked again from the objects themselves.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cluster import layout
from cluster.records import ObjectRef, Shard, offsets_of
from cluster.shard_log import CountedCommit, ShardState, read_shard_state
from cluster.store import Store
from cluster.tables import read_parquet
from conf.errors import CorruptOutput, StoreRefused

MOST_PROBLEMS = 20
"""So many problems are kept as sentences; the others are counted."""

Row = Mapping[str, Any]


@dataclass(slots=True)
class Findings:
    """Problems so far: the first ``MOST_PROBLEMS`` as sentences, the others as a number."""

    sentences: list[str] = field(default_factory=list)
    count: int = 0
    objects: int = 0

    def add(self, sentence: str) -> None:
        """One more problem."""
        self.count += 1
        if len(self.sentences) < MOST_PROBLEMS:
            self.sentences.append(sentence)

    def expect(self, what: str, *, found: object, expected: object) -> None:
        """A problem unless both are equal."""
        if found != expected:
            self.add(f"{what} is {found}; expected {expected}")

    def merge(self, other: Findings) -> None:
        """Take over what another check found."""
        self.sentences += other.sentences[: MOST_PROBLEMS - len(self.sentences)]
        self.count += other.count
        self.objects += other.objects


class ShardCheck:
    """The check of one shard; ``run`` is called once."""

    def __init__(self, store: Store, shard: Shard, io: ThreadPoolExecutor) -> None:
        self._store = store
        self._shard = shard
        self._io = io
        self._findings = Findings()
        self._done: set[int] = set()

    def run(self) -> tuple[ShardState | None, Findings]:
        """The shard's state, None where it cannot be read, and what is wrong with it."""
        name = f"shard {self._shard.shard_id}"
        try:
            state = read_shard_state(self._store, self._shard.shard_id)
        except (CorruptOutput, StoreRefused) as error:
            self._findings.add(f"{name}: {error}")
            return None, self._findings
        for item in state.commits:
            self._check_commit(item)
        self._check_sequence(state)
        missing = self._shard.rows - len(self._done)
        if state.sealed and missing:
            self._findings.add(
                f"{name} is sealed although {missing} of its {self._shard.rows} rows are neither "
                "committed nor quarantined"
            )
        return state, self._findings

    def _check_sequence(self, state: ShardState) -> None:
        """An epoch numbers its commits from 0; a gap is a commit that vanished."""
        numbers: dict[int, list[int]] = {}
        for item in state.commits:
            numbers.setdefault(item.commit.epoch, []).append(item.commit.seq)
        for epoch, found in numbers.items():
            for lost in sorted(set(range(max(found))) - set(found)):
                key = layout.commit(self._shard.shard_id, epoch, lost)
                self._findings.add(f"{key} is missing although later commits of its epoch count")

    def _check_commit(self, item: CountedCommit) -> None:
        commit, key, findings = item.commit, item.key, self._findings
        named = layout.commit(commit.shard_id, commit.epoch, commit.seq)
        if named != key or commit.shard_id != self._shard.shard_id:
            findings.add(f"{key} says that it is {named}")
        rows, rejected = offsets_of(commit.rows), offsets_of(commit.quarantined)
        counted = rows | (rejected if item.quarantine else set())
        twice = len(rows & rejected) + len(counted & self._done)
        if twice:
            findings.add(f"{key} names {twice} rows that count already")
        beyond = [o for o in rows | rejected if not 0 <= o < self._shard.rows]
        if beyond:
            findings.add(f"{key} names row {beyond[0]} of a shard of {self._shard.rows} rows")
        self._done |= counted
        self._check_quarantine(item, {self._shard.first_row_id + o for o in rejected})
        metadata = self._table(item, "metadata", commit.metadata, needed=commit.images > 0)
        if metadata is not None:
            self._check_metadata(item, metadata, {self._shard.first_row_id + o for o in rows})
            self._check_images(item, metadata)
        self._check_ledger(item, metadata)

    def _check_quarantine(self, item: CountedCommit, expected: set[int]) -> None:
        table = self._table(item, "quarantine", item.commit.quarantine, needed=bool(expected))
        if table is not None and item.commit.quarantine is not None:
            found = sorted(row["row_id"] for row in table)
            if found != sorted(expected):
                self._findings.add(
                    f"{item.commit.quarantine.key} lists {len(found)} rows; its commit {item.key} "
                    f"quarantined {len(expected)} or others"
                )

    def _check_metadata(self, item: CountedCommit, table: list[Row], expected: set[int]) -> None:
        commit, findings = item.commit, self._findings
        assert commit.metadata is not None
        key = commit.metadata.key
        indexes: dict[int, list[int]] = {}
        for row in table:
            indexes.setdefault(row["row_id"], []).append(row["image_index"])
        if set(indexes) != expected:
            odd = sorted(set(indexes) ^ expected)
            findings.add(
                f"{key} holds {len(indexes)} rows; its commit {item.key} names {len(expected)} or "
                f"others (first that differs: row {odd[0]})"
            )
        for row_id, found in indexes.items():
            if sorted(found) != list(range(len(found))):
                findings.add(
                    f"{key} has images {sorted(found)} of row {row_id}; expected 0 to "
                    f"{len(found) - 1}, each once"
                )
        ids = {row["image_id"] for row in table}
        findings.expect(f"the number of image ids in {key}", found=len(ids), expected=len(table))
        findings.expect(f"the images in {key}", found=len(table), expected=commit.images)
        found_bytes = sum(row["bytes"] for row in table)
        findings.expect(f"the bytes in {key}", found=found_bytes, expected=commit.image_bytes)

    def _check_ledger(self, item: CountedCommit, metadata: list[Row] | None) -> None:
        commit, findings = item.commit, self._findings
        lines = self._table(item, "ledger", commit.ledger, needed=commit.images > 0)
        if lines is None or commit.ledger is None:
            return
        key = commit.ledger.key
        amount = sum(line["amount_nano"] or 0 for line in lines)
        device_ns = sum(line["gpu_ns"] for line in lines)
        findings.expect(f"the amount in {key}", found=amount, expected=commit.amount_nano)
        findings.expect(f"the device time in {key}", found=device_ns, expected=commit.device_ns)
        if metadata is not None:
            charged = sorted(str(line["image_id"]) for line in lines)
            if charged != sorted(str(row["image_id"]) for row in metadata):
                findings.add(f"{key} does not charge exactly the images of its commit {item.key}")

    def _table(
        self, item: CountedCommit, what: str, ref: ObjectRef | None, *, needed: bool
    ) -> list[Row] | None:
        """The rows of a table that the commit names, or None when there is nothing to check."""
        if ref is None:
            if needed:
                self._findings.add(f"{item.key} names no {what} object although it needs one")
            return None
        data = self._read(item, ref)
        if data is None:
            return None
        try:
            rows: list[Row] = _columns(what, data)
        except (pa.ArrowException, OSError, KeyError) as error:
            self._findings.add(f"{ref.key} is no {what} table: {error}")
            return None
        return rows

    def _read(self, item: CountedCommit, ref: ObjectRef) -> bytes | None:
        self._findings.objects += 1
        says = f"its commit {item.key}"
        try:
            data = self._store.get(ref.key)
        except StoreRefused as error:
            self._findings.add(_unreadable(error, says))
            return None
        problem = _difference(ref.key, data, ref.bytes, ref.sha256, says)
        if problem:
            self._findings.add(problem)
        return data

    def _check_images(self, item: CountedCommit, table: list[Row]) -> None:
        """Every image's bytes against its metadata row, wherever the output format keeps them."""
        assert item.commit.metadata is not None
        says = f"its row in {item.commit.metadata.key}"
        inside: dict[str, dict[str, bytes]] = {}
        for ref in item.commit.objects:
            data = self._read(item, ref)
            inside[ref.key] = {} if data is None else self._members(ref.key, data)
            if data is None:
                table = [row for row in table if row["object"] != ref.key]

        def compare(row: Row) -> str | None:
            key, member = str(row["object"]), row["member"]
            name = key if member is None else f"{key} member {member}"
            try:
                data = self._store.get(key) if member is None else inside.get(key, {}).get(member)
            except StoreRefused as error:
                return _unreadable(error, says)
            return _difference(name, data, row["bytes"], row["sha256"], says)

        self._findings.objects += len(table)
        for problem in self._io.map(compare, table):
            if problem:
                self._findings.add(problem)

    def _members(self, key: str, data: bytes) -> dict[str, bytes]:
        """What is inside a container, by name; as much as can be read."""
        found: dict[str, bytes] = {}
        try:
            for name, content in _unpacked(key, data):
                if name in found:
                    self._findings.add(f"{key} holds {name} twice")
                found[name] = content
        except (tarfile.TarError, pa.ArrowException, OSError, KeyError) as error:
            self._findings.add(f"{key} cannot be opened: {error}")
        return found


_COLUMNS = {
    "metadata": ["image_id", "row_id", "image_index", "object", "member", "bytes", "sha256"],
    "quarantine": ["row_id"],
    "ledger": ["image_id", "gpu_ns", "amount_nano"],
}


def _columns(what: str, data: bytes) -> list[Row]:
    rows: list[Row] = read_parquet(data, _COLUMNS[what]).select(_COLUMNS[what]).to_pylist()
    return rows


def _unpacked(key: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if key.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                file = tar.extractfile(info)
                if file is not None:
                    with closing(file):
                        yield info.name, file.read()
    else:
        for cell in read_parquet(data, ["image"])["image"].to_pylist():
            yield cell["path"], cell["bytes"]


def _unreadable(error: StoreRefused, says: str) -> str:
    """An object that may be whole: the store's own sentence, and who names the object."""
    return f"{error} ({says} names it)"


def _difference(name: str, data: bytes | None, size: int, sha256: str, says: str) -> str | None:
    """How an object differs from what names it, or None when it does not."""
    if data is None:
        return f"{name} is missing although {says} names it"
    if len(data) != size:
        return f"{name} has {len(data)} bytes; {says} says {size}"
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        return f"{name} has sha256 {found[:16]}…; {says} says {sha256[:16]}…"
    return None
