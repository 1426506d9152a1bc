"""The checker's look at the money: does the ledger close, to the last unit?"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.bucket import Bucket

_NS_PER_HOUR = 3600 * 10**9
_TIME = {"used", "wasted", "overhead", "idle"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the lines add up to. ``amount_nano`` is in 1e-9 currency units."""

    amount_nano: int
    wasted_s: float
    problems: tuple[str, ...]


def check_books(
    bucket: Bucket, *, used: Sequence[Mapping[str, Any]], stamps: Mapping[str, Mapping[str, Any]]
) -> Books:
    """Every line of every worker against its lifetime, at the price in its run's price book.

    Args:
        used: the lines of the images that count.
        stamps: each worker's newest evidence of its lifetime.
    """
    problems: list[str] = []
    books = _PriceBooks(bucket, problems)
    others = _lines(bucket, problems)
    lines = [*used, *others]
    twice = [
        name for name, count in Counter(line["line_id"] for line in lines).items() if count > 1
    ]
    if twice:
        problems.append(f"{len(twice)} lines are there twice, the first is {twice[0]}")
    strange = {line["worker"] for line in lines} - set(stamps)
    if strange:
        problems.append(f"lines are charged to workers that never lived: {sorted(strange)}")
    first = [line for line in lines if line.get("corrects") is None]
    if any((line[name] or 0) < 0 for line in first for name in ("gpu_ns", "amount_nano")):
        problems.append("a line is negative")
    problems += [said for line in others if (said := _off_its_price(line))]
    for worker, stamp in stamps.items():
        own = [line for line in lines if line["worker"] == worker]
        _check_time(books, stamp, [line for line in own if line["kind"] in _TIME], problems)
        _check_requests(books, stamp, [line for line in own if line["kind"] not in _TIME], problems)
    return Books(
        amount_nano=sum(line["amount_nano"] or 0 for line in lines),
        wasted_s=sum(line["gpu_ns"] for line in others if line["kind"] == "wasted") / 1e9,
        problems=tuple(problems),
    )


def check_shares(bucket: Bucket, used: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What is wrong with what images are said to have cost in all: one row an image, its direct
    cost as its line has it, and the shares of a kind as much as the lines of that kind, null where
    one of them has no price."""
    problems: list[str] = []
    others = _lines(bucket, problems)
    data = [bucket.read(key) or b"" for key in bucket.listing("costs/")]
    rows = [row for one in data for row in pq.read_table(io.BytesIO(one)).to_pylist()]
    direct = {line["image_id"]: line["amount_nano"] for line in used}
    if {row["image_id"]: _nano(row["cost"]) for row in rows} != direct or len(rows) != len(used):
        return ("costs/ does not have each image once with its direct cost",)
    for kind in ("wasted", "overhead", "idle", "requests", "egress", "storage"):
        amounts = [line["amount_nano"] for line in others if line["kind"] == kind]
        shares = [_nano(row[f"cost_{kind}"]) for row in rows]
        open_ones = shares.count(None)
        if None in amounts:
            right = open_ones == len(rows)
        else:
            right = not rows or (not open_ones and sum(shares) == sum(amounts))
        if not right:
            problems.append(f"costs/ charges {sum(s or 0 for s in shares)} nano for {kind}")
    return tuple(problems)


def _nano(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.scaleb(9))


def _check_time(
    books: _PriceBooks,
    stamp: Mapping[str, Any],
    own: Sequence[Mapping[str, Any]],
    problems: list[str],
) -> None:
    worker = stamp["worker"]
    first = [line for line in own if line.get("corrects") is None]
    kinds = Counter(line["kind"] for line in first if line["kind"] != "used")
    if kinds != Counter(_TIME - {"used"}):
        problems.append(f"{worker} has the lines {dict(kinds)} beside its images")
    hourly = books.nano_per_hour(stamp)
    price = _rounded(Fraction(hourly) * stamp["lifetime_ns"] / _NS_PER_HOUR)
    named = {(line["price_nano_per_hour"], line["price_digest"]) for line in own}
    if named != {(hourly, stamp["price"]["digest"])}:
        problems.append(f"{worker} costs {hourly} nano an hour; its lines say {named}")
    amount = sum(line["amount_nano"] for line in own)
    time_ns = sum(line["gpu_ns"] for line in own)
    if time_ns != stamp["lifetime_ns"]:
        problems.append(f"{worker} lived {stamp['lifetime_ns']} ns; its lines say {time_ns}")
    if amount != price:
        problems.append(f"{worker} costs {price} nano; its lines say {amount}")


def _check_requests(
    books: _PriceBooks,
    stamp: Mapping[str, Any],
    own: Sequence[Mapping[str, Any]],
    problems: list[str],
) -> None:
    """What the worker asked of the store, counted and charged by the thousand."""
    prices = books.request_prices(stamp)
    for name in ("writes", "reads"):
        lines = [line for line in own if line["unit"] == f"1000 {name}"]
        asked = sum(Fraction(line["quantity"]) for line in lines) * 1000
        if asked != stamp["requests"][name]:
            problems.append(
                f"{stamp['worker']} made {stamp['requests'][name]} {name}; its lines say {asked}"
            )
        amounts = [line["amount_nano"] for line in lines]
        if prices is None and set(amounts) - {None}:
            problems.append(f"{stamp['worker']} is charged for {name} that have no price")
        if prices is not None and sum(amounts) != _rounded(Fraction(prices[name]) * asked / 1000):
            problems.append(f"{stamp['worker']} made {asked} {name}; its lines charge {amounts}")


def _off_its_price(line: Mapping[str, Any]) -> str:
    """What is wrong with the amount of a line by quantity, corrections included; "" if nothing."""
    price, amount = line["price_nano_per_unit"], line["amount_nano"]
    if line["kind"] in _TIME:
        return ""
    if price is None or amount is None:
        wrong = price is not amount
    else:
        wrong = abs(amount - price * Fraction(line["quantity"])) > 1
    told = f"{line['line_id']} charges {amount} for {line['quantity']} at {price}"
    return told if wrong else ""


class _PriceBooks:
    """The price books of the job's runs, by the digest of their bytes."""

    def __init__(self, bucket: Bucket, problems: list[str]) -> None:
        self._bucket = bucket
        self._problems = problems

    def nano_per_hour(self, stamp: Mapping[str, Any]) -> int:
        """What the worker of this stamp costs, by its run's book and its share of the machine; 0
        where that is no use. Several shares of one machine are at most all of it.
        """
        book = self._book(stamp)
        names = ("instance_type", "purchase_option")
        found = {
            entry["nano_per_hour"]
            for entry in book["instances"]
            if all(entry[name] in (None, stamp["price"][name]) for name in names)
        }
        if len(found) != 1:
            self._problems.append(f"{stamp['worker']} has {len(found)} prices in its run's book")
            return 0
        return _rounded(found.pop() * Fraction(stamp["price"]["share"]))

    def request_prices(self, stamp: Mapping[str, Any]) -> dict[str, int] | None:
        """The prices of a thousand writes and reads; None where the book has none. The jobs that
        are checked have at most one store in their books."""
        for entry in self._book(stamp)["storage"]:
            return {name: entry[f"nano_per_1000_{name}"] for name in ("writes", "reads")}
        return None

    def _book(self, stamp: Mapping[str, Any]) -> dict[str, Any]:
        run = json.loads(self._bucket.read(f"runs/{stamp['run']:06d}.json") or b"{}")
        digest = run.get("prices", "")
        data = self._bucket.read(f"prices/{digest}.json") or b"{}"
        if hashlib.sha256(data).hexdigest()[:16] != digest or stamp["price"]["digest"] != digest:
            self._problems.append(
                f"{stamp['worker']} is not priced by the book of its run, {digest}"
            )
            return {"instances": [], "storage": []}
        book: dict[str, Any] = json.loads(data)
        return book


def _lines(bucket: Bucket, problems: list[str]) -> list[dict[str, Any]]:
    key = "ledger/workers.parquet"
    data = bucket.read(key)
    if data is None:
        problems.append(f"{key} is missing")
        return []
    table = pq.read_table(io.BytesIO(data))
    for name in ("gpu_ns", "amount_nano"):
        if not pa.types.is_int64(table.schema.field(name).type):
            problems.append(f"{key}: {name} is no integer")
    lines: list[dict[str, Any]] = table.to_pylist()
    return lines


def _rounded(amount: Fraction) -> int:
    """Half up."""
    return int(amount + Fraction(1, 2))
