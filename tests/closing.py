"""Proves that the books of an output close: what ``imagemill cost`` tells is what the price book
says for the lifetimes of the workers, to the last 1e-9 unit.

    imagemill cost OUTPUT --format json --out cost.json
    python tests/closing.py OUTPUT cost.json

Written from docs/output.md and docs/money.md alone: no code of ImageMill is imported, nor of its
other checkers. Of the output it reads the ledger, the price books of the runs, the stamps of the
workers, and the records that say which commits count. Fractions only, no floating point.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

_HOUR_NS = 3600 * 10**9
_TIME = ("used", "wasted", "overhead", "idle")
_PLACE = ("provider", "region", "instance_type", "purchase_option")
Plain = Mapping[str, Any]


class Objects(Protocol):
    """The objects of one output by their keys in it."""

    def listing(self, prefix: str = "") -> Iterator[str]:
        """All keys that begin so."""

    def read(self, key: str) -> bytes | None:
        """An object's bytes, None where there is no such key."""


class Folder:
    """The objects of an output in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def listing(self, prefix: str = "") -> Iterator[str]:
        for path in sorted((self._root / prefix).rglob("*")):
            if path.is_file():
                yield path.relative_to(self._root).as_posix()

    def read(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None


@dataclass(slots=True)
class Proof:
    """What was added up, amounts in 1e-9 currency units; it holds only without ``problems``.

    ``lifetimes_nano`` is price x lifetime over all workers, each rounded to the nearest unit.
    """

    workers: int = 0
    lived_ns: int = 0
    lifetimes_nano: int = 0
    requests_nano: int = 0
    storage_nano: int = 0
    told_nano: int = 0
    currency: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def whole_nano(self) -> int:
        """What the job cost by lifetimes and counted requests."""
        return self.lifetimes_nano + self.requests_nano + self.storage_nano


def prove(objects: Objects, told: Plain) -> Proof:
    """Add up an output of which every worker has a price, and compare.

    Args:
        told: the answer of ``imagemill cost OUTPUT --format json``.
    """
    proof = Proof()
    counted = list(_counted(objects))
    stamps = _lifetimes(objects, counted)
    lines = list(_lines(objects, counted, proof))
    of_worker: dict[str | None, list[Plain]] = defaultdict(list)
    for line in lines:
        of_worker[line["worker"]].append(line)
    strangers = set(of_worker) - set(stamps) - {None}
    if strangers:
        proof.problems.append(f"lines of workers that never lived: {sorted(map(str, strangers))}")
    for worker, stamp in stamps.items():
        book = _book(objects, stamp, proof)
        _close_time(book, stamp, of_worker[worker], proof)
        _close_requests(book, stamp, of_worker[worker], proof)
    for line in of_worker[None]:
        if line["kind"] != "storage" or _off(line) > 1:
            proof.problems.append(f"{line['line_id']} is charged to nobody, or not at its price")
        proof.storage_nano += line["amount_nano"] or 0
    _compare(told, lines, proof)
    return proof


def _counted(objects: Objects) -> Iterator[Plain]:
    """The commits that count: those on the list of their shard's newest opening and, while that is
    no seal, those of its own epoch."""
    newest: dict[str, Plain] = {}
    for key in sorted(objects.listing("leases/")):  # epochs of a shard ascend
        newest[key.rsplit("/", 1)[0]] = json.loads(objects.read(key) or b"")
    listed = {item["key"] for opening in newest.values() for item in opening["accepted"]}
    open_epochs = {
        (opening["shard_id"], opening["epoch"])
        for opening in newest.values()
        if not opening["sealed"]
    }
    for key in objects.listing("commits/"):
        commit = json.loads(objects.read(key) or b"")
        if key in listed or (commit["shard_id"], commit["epoch"]) in open_epochs:
            yield commit


def _lifetimes(objects: Objects, counted: Sequence[Plain]) -> dict[str, Plain]:
    """Each worker's newest evidence of its life."""
    found = [json.loads(objects.read(key) or b"") for key in objects.listing("workers/")]
    newest: dict[str, Plain] = {}
    for stamp in [*found, *(commit["stamp"] for commit in counted)]:
        before = newest.setdefault(stamp["worker"], stamp)
        if stamp["lifetime_ns"] > before["lifetime_ns"]:
            newest[stamp["worker"]] = stamp
    return newest


def _lines(objects: Objects, counted: Sequence[Plain], proof: Proof) -> Iterator[Plain]:
    """Every line of the ledger that counts."""
    keys = [commit["ledger"]["key"] for commit in counted if commit["ledger"]]
    seen: set[str] = set()
    for key in [*keys, "ledger/workers.parquet"]:
        data = objects.read(key)
        if data is None:
            proof.problems.append(f"{key} is missing")
            continue
        # one thread: a process that ends right after threads read may abort
        with pq.ParquetFile(io.BytesIO(data)) as file:
            found = file.read(use_threads=False).to_pylist()
        for line in found:
            if line["line_id"] in seen:
                proof.problems.append(f"line {line['line_id']} is there twice")
            seen.add(line["line_id"])
            yield line


def _book(objects: Objects, stamp: Plain, proof: Proof) -> Plain:
    """The price book of the worker's run, which is named after its own digest."""
    run = json.loads(objects.read(f"runs/{stamp['run']:06d}.json") or b"{}")
    digest = run.get("prices", "")
    data = objects.read(f"prices/{digest}.json") or b'{"instances": [], "storage": []}'
    if hashlib.sha256(data).hexdigest()[:16] != digest:
        proof.problems.append(f"the price book {digest} of run {stamp['run']} is not what it was")
    book: Plain = json.loads(data)
    return book


def _close_time(book: Plain, stamp: Plain, own: Sequence[Plain], proof: Proof) -> None:
    """A worker's price by the book x its lifetime, against its lines."""
    worker, hourly = stamp["worker"], stamp["price"]["nano_per_hour"]
    if hourly is None or not _in_book(book, stamp, hourly):
        proof.problems.append(f"{worker} costs {hourly} nano an hour, which is not in its book")
        return
    bill = _nearest(Fraction(hourly) * stamp["lifetime_ns"] / _HOUR_NS)
    lines = [line for line in own if line["kind"] in _TIME]
    amount = sum(line["amount_nano"] or 0 for line in lines)
    lived = sum(line["gpu_ns"] or 0 for line in lines)
    if lived != stamp["lifetime_ns"]:
        proof.problems.append(f"{worker} lived {stamp['lifetime_ns']} ns; its lines hold {lived}")
    if amount != bill:
        proof.problems.append(f"{worker}: price x lifetime is {bill}; its lines hold {amount}")
    proof.workers += 1
    proof.lived_ns += stamp["lifetime_ns"]
    proof.lifetimes_nano += bill


def _in_book(book: Plain, stamp: Plain, hourly: int) -> bool:
    """Whether an entry that may be the worker's machine gives this price for the worker's share,
    which is at most all of it."""
    share = Fraction(stamp["price"]["share"])
    return share <= 1 and any(
        hourly == _nearest(entry["nano_per_hour"] * share)
        for entry in book["instances"]
        if all(entry[name] in (None, stamp["price"][name]) for name in _PLACE)
    )


def _close_requests(book: Plain, stamp: Plain, own: Sequence[Plain], proof: Proof) -> None:
    """What a worker asked of the store, as its stamp counts it, against its lines."""
    asked = stamp["requests"]
    for unit, count, per, price in (
        ("1000 writes", asked["writes"], 1000, "nano_per_1000_writes"),
        ("1000 reads", asked["reads"], 1000, "nano_per_1000_reads"),
        ("GB", asked["read_bytes"], 10**9, "nano_per_gb_egress"),
    ):
        lines = [line for line in own if line["unit"] == unit]
        quantity = sum((Fraction(line["quantity"]) for line in lines), Fraction(0))
        amount = sum(line["amount_nano"] or 0 for line in lines)
        prices = {entry[price] for entry in book["storage"]}
        expected = {_nearest(Fraction(found) * count / per) for found in prices} or {0}
        if lines and quantity != Fraction(count, per):
            proof.problems.append(
                f"{stamp['worker']} asked for {count} of {unit}; its lines hold {quantity * per}"
            )
        if lines and amount not in expected:
            proof.problems.append(f"{stamp['worker']}: {unit} come to {expected}, not {amount}")
        if count and not lines and (unit != "GB" or prices - {0}):
            proof.problems.append(f"{stamp['worker']} asked for {count} of {unit} on no line")
        proof.requests_nano += amount


def _compare(told: Plain, lines: Sequence[Plain], proof: Proof) -> None:
    """What was told against what was added up here."""
    if len(told["totals"]) != 1:
        proof.problems.append(f"it tells {len(told['totals'])} totals; expected one currency")
        return
    total = told["totals"][0]
    proof.currency = total["currency"]
    proof.told_nano = _nano(total["cost"])
    if proof.told_nano != proof.whole_nano:
        proof.problems.append(
            f"it tells {proof.told_nano} nano; lifetimes and requests come to {proof.whole_nano}"
        )
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line["kind"]] += line["amount_nano"] or 0
    for kind in (*_TIME, "storage", "requests", "egress"):
        if _nano(total[kind]) != sums[kind]:
            proof.problems.append(f"it tells {total[kind]} {kind}; the lines hold {sums[kind]}")
    images = sum(line["kind"] == "used" for line in lines)
    if total["images"] != images:
        proof.problems.append(f"it tells {total['images']} images; {images} are charged")


def _off(line: Plain) -> Fraction:
    """How far a line is from its price x its quantity."""
    price, amount = line["price_nano_per_unit"], line["amount_nano"]
    if price is None or amount is None:
        return Fraction(0)
    return abs(amount - price * Fraction(line["quantity"]))


def _nano(amount: str | None) -> int:
    return int(Decimal(amount or 0).scaleb(9))


def _units(nano: int) -> str:
    return f"{Decimal(nano).scaleb(-9):f}"


def _nearest(amount: Fraction) -> int:
    """Half up."""
    return int(amount + Fraction(1, 2))


def main() -> int:
    """Prove it of an output in a local folder; 1 where it does not hold."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    told = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    proof = prove(Folder(Path(sys.argv[1])), told)
    print(
        f"workers: {proof.workers}; they lived {_units(proof.lived_ns)} s; price book x "
        f"lifetime {_units(proof.lifetimes_nano)}, requests {_units(proof.requests_nano)}, storage "
        f"{_units(proof.storage_nano)} {proof.currency}; imagemill cost tells "
        f"{_units(proof.told_nano)}"
    )
    print("\n".join(proof.problems) or "closed to the last unit")
    return 1 if proof.problems else 0


if __name__ == "__main__":
    sys.exit(main())
