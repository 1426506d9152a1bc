"""The checker: reads only the bucket and proves what is promised, row by row and byte by byte.

It shares no code with what it checks. ``lost`` counts rows in no state and images that are missing
or damaged; ``doubled`` counts rows in two states and images that are there twice. Whatever else is
wrong is a problem in words, so that an output is whole only if there is none.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.books import check_books, check_shares
from tests.chaos.bucket import Bucket
from tests.chaos.records import Counted, Plain, Records, read_records

_ATTEMPTS = ("images/", "shards/", "data/", "metadata/", "quarantine/", "ledger/")
_WORKER_LEDGER = "ledger/workers.parquet"
_SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF", "jpeg": b"\xff\xd8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an output holds, and what is wrong with it.

    ``images``: sha256 by image id. ``leftovers``: objects that no commit counts, which a finished
    job may have until ``gc``. ``wasted_s``: GPU-seconds on the ledger's wasted lines.
    """

    rows: int
    committed: int
    quarantined: int
    lost: int
    doubled: int
    images: Mapping[str, str]
    leftovers: int
    wasted_s: float
    reasons: tuple[str, ...]
    problems: tuple[str, ...]


def check(
    bucket: Bucket, wanted: Sequence[Mapping[str, Any]], *, outlived: bool = False
) -> Verdict:
    """Check a finished output.

    Args:
        wanted: the input's rows, in their order: what must be there.
        outlived: a worker lived on after the manifest, whose cost is less than the ledger's then.
    """
    return _Check(bucket, wanted, outlived).run()


@dataclass(slots=True)
class _Check:
    bucket: Bucket
    wanted: Sequence[Mapping[str, Any]]
    outlived: bool
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)
    committed: Counter[int] = field(default_factory=Counter)
    quarantined: Counter[int] = field(default_factory=Counter)
    images: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    used: list[Plain] = field(default_factory=list)
    metadata: list[Plain] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def run(self) -> Verdict:
        records = read_records(self.bucket)
        self.problems += records.problems
        for shard in self._plan():
            self._check_shard(shard, records)
        self._check_states()
        self._check_list_for_datasets()
        books = check_books(self.bucket, used=self.used, stamps=records.stamps)
        self.problems += books.problems
        self.problems += check_shares(self.bucket, self.used)
        self._check_manifest(books.amount_nano)
        return Verdict(
            rows=len(self.wanted),
            committed=len(self.committed),
            quarantined=len(self.quarantined),
            lost=self.lost,
            doubled=self.doubled,
            images=self.images,
            leftovers=self._leftovers(),
            wasted_s=books.wasted_s,
            reasons=tuple(sorted(self.reasons)),
            problems=tuple(self.problems),
        )

    def _plan(self) -> list[dict[str, Any]]:
        shards = self._table("plan/shards.parquet")
        rows = 0
        for number, shard in enumerate(shards):
            if (shard["shard_id"], shard["first_row_id"]) != (number, rows):
                self.problems.append(f"the plan's shard {number} does not follow its predecessor")
            rows += shard["rows"]
        if rows != len(self.wanted):
            self.problems.append(f"the plan has {rows} rows; the input has {len(self.wanted)}")
        return shards

    def _check_shard(self, shard: Plain, records: Records) -> None:
        name, first = f"shard {shard['shard_id']}", shard["first_row_id"]
        found = records.shards.get(shard["shard_id"])
        if found is None or not found.sealed:
            self.problems.append(f"{name} is not sealed")
        for item in found.commits if found else ():
            said = (item.commit["shard_id"], item.commit["epoch"], item.commit["seq"])
            digits = item.key.rsplit("/", 1)[-1].removesuffix(".json").split("-")
            if said != (shard["shard_id"], *map(int, digits)):
                self.problems.append(f"{item.key} says that it is {said}")
            beyond = [o for o in item.rows() + item.rejected() if not 0 <= o < shard["rows"]]
            if beyond:
                self.problems.append(f"{item.key} names row {beyond[0]}, beyond its shard")
            rows = [first + offset for offset in item.rows()]
            rejected = [first + offset for offset in item.rejected()]
            self.committed.update(rows)
            self.quarantined.update(rejected if item.quarantine else ())
            self._check_commit(item, rows, rejected)

    def _check_commit(self, item: Counted, rows: list[int], rejected: list[int]) -> None:
        commit = item.commit
        metadata = self._named_table(item, "metadata")
        quarantine = self._named_table(item, "quarantine")
        used = self._named_table(item, "ledger")
        containers = {ref["key"]: self._named(item, ref) for ref in commit["objects"]}
        if Counter(row["row_id"] for row in quarantine) != Counter(rejected):
            self.problems.append(f"{item.key}: the quarantine table lists other rows")
        if item.quarantine:
            self.reasons |= {row["reason"] for row in quarantine}
        if {row["row_id"] for row in metadata} != set(rows):
            self.problems.append(f"{item.key}: the metadata is of other rows")
        for name, found in (
            ("images", len(metadata)),
            ("image_bytes", sum(row["bytes"] for row in metadata)),
            ("amount_nano", sum(line["amount_nano"] for line in used)),
            ("device_ns", sum(line["gpu_ns"] for line in used)),
        ):
            if commit[name] != found:
                self.problems.append(
                    f"{item.key}: {name} is {commit[name]}, the tables say {found}"
                )
        self.used += used
        self.metadata += metadata
        for row in metadata:
            self._check_image(row, containers)

    def _check_image(self, row: Plain, containers: Mapping[str, bytes | None]) -> None:
        image_id, key = row["image_id"], row["object"]
        if image_id in self.images:
            self.doubled += 1
            self.problems.append(f"image {image_id} is there twice")
        self.images[image_id] = row["sha256"]
        self.named.add(key)
        if image_id != f"{row['row_id']:09d}-{row['image_index']}":
            self.problems.append(f"image {image_id} is of row {row['row_id']}")
        if row["row_id"] < len(self.wanted):
            wanted = self.wanted[row["row_id"]]
            for name in ("prompt", "width", "height", "steps"):
                if name in wanted and wanted[name] != row[name]:
                    self.problems.append(f"image {image_id} has another {name} than its row")
        data = self.bucket.read(key) if row["member"] is None else None
        if row["member"] is not None:
            data = _member(key, containers.get(key), row["member"])
        wrong = _difference(data, row["bytes"], row["sha256"])
        if not wrong and data is not None and not data.startswith(_SIGNATURES[row["format"]]):
            wrong = f"no {row['format']}"
        if wrong:
            self.lost += 1
            self.problems.append(f"image {image_id} in {key}: {wrong}")

    def _check_states(self) -> None:
        """Every row in exactly one state, every committed one with all of its images."""
        images = Counter(row["row_id"] for row in self.metadata)
        for row_id, wanted in enumerate(self.wanted):
            states = self.committed[row_id] + self.quarantined[row_id]
            if states == 0:
                self.lost += 1
                self.problems.append(f"row {row_id} is in no state")
            elif states > 1:
                self.doubled += 1
                self.problems.append(f"row {row_id} counts {states} times")
            expected = wanted.get("num_images", 1) if self.committed[row_id] else 0
            if images[row_id] != expected:
                self.problems.append(f"row {row_id} has {images[row_id]} images, not {expected}")
        strange = (set(self.committed) | set(self.quarantined)) - set(range(len(self.wanted)))
        if strange:
            self.problems.append(f"rows count that the input does not have: {sorted(strange)[:3]}")

    def _check_list_for_datasets(self) -> None:
        """The list at the top names what counts and nothing else."""
        if not self.images or any(row["member"] is not None for row in self.metadata):
            return
        listed = Counter(row["file_name"] for row in self._table("metadata.parquet"))
        if listed != Counter(row["object"] for row in self.metadata):
            self.problems.append("metadata.parquet does not list exactly the images that count")

    def _check_manifest(self, amount_nano: int) -> None:
        keys = sorted(self.bucket.listing("manifests/"))
        if not keys:
            self.problems.append("the job has no manifest: it is not finished")
            return
        said = json.loads(self.bucket.read(keys[-1]) or b"{}")
        cost_nano = int(Fraction(said.get("cost") or 0) * 10**9)
        if cost_nano > amount_nano or (cost_nano < amount_nano and not self.outlived):
            self.problems.append(f"{keys[-1]}: cost is {cost_nano} nano, not {amount_nano}")
        for name, found in (
            ("rows", len(self.wanted)),
            ("committed", len(self.committed)),
            ("quarantined", len(self.quarantined)),
            ("images", len(self.metadata)),
            ("image_bytes", sum(row["bytes"] for row in self.metadata)),
        ):
            if said.get(name) != found:
                self.problems.append(f"{keys[-1]}: {name} is {said.get(name)}, not {found}")

    def _leftovers(self) -> int:
        found = {key for prefix in _ATTEMPTS for key in self.bucket.listing(prefix)}
        return len(found - self.named - {_WORKER_LEDGER})

    def _named_table(self, item: Counted, what: str) -> list[dict[str, Any]]:
        """The rows of a table that a commit names, none where it names none."""
        ref = item.commit[what]
        data = self._named(item, ref) if ref else None
        return [] if data is None else self._rows(ref["key"], data)

    def _named(self, item: Counted, ref: Plain) -> bytes | None:
        """An object as its commit names it; a missing or changed one is a problem."""
        data = self.bucket.read(ref["key"])
        self.named.add(ref["key"])
        wrong = _difference(data, ref["bytes"], ref["sha256"])
        if wrong:
            self.problems.append(f"{ref['key']}, named by {item.key}: {wrong}")
        return data

    def _table(self, key: str) -> list[dict[str, Any]]:
        data = self.bucket.read(key)
        if data is None:
            self.problems.append(f"{key} is missing")
            return []
        return self._rows(key, data)

    def _rows(self, key: str, data: bytes) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
        except (pa.ArrowException, OSError) as error:
            self.problems.append(f"{key} is no Parquet table: {error}")
            return []
        return rows


def _difference(data: bytes | None, size: int, sha256: str) -> str:
    """How an object differs from what is said of it; empty where it does not."""
    if data is None:
        return "it is missing"
    if len(data) != size:
        return f"it has {len(data)} bytes, not {size}"
    if hashlib.sha256(data).hexdigest() != sha256:
        return "its sha256 is another"
    return ""


def _member(key: str, container: bytes | None, name: str) -> bytes | None:
    """A picture inside a tar or a Parquet file; None where it is missing or there twice."""
    if container is None:
        return None
    found: list[bytes] = []
    if key.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(container)) as tar:
            files = [tar.extractfile(info) for info in tar.getmembers() if info.name == name]
            found = [file.read() for file in files if file is not None]
    else:
        cells = pq.read_table(io.BytesIO(container), columns=["image"])["image"].to_pylist()
        found = [cell["bytes"] for cell in cells if cell["path"] == name]
    return found[0] if len(found) == 1 else None
