"""The ledger closes after any history: ticks, kills, retries, zombies, looks and price changes.

Real shard logs, commits, stamps and ledger files, made by random histories; summed up by the code
that sums up jobs, and checked by ``tests.chaos.books``, which shares none of it.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from shard_records import PRICE, STAMP, commit_of

from cluster import layout
from cluster.ledger import Attribution, Payer, image_lines, ledger_table
from cluster.lifetime import persist
from cluster.money import split
from cluster.plan_file import PlanReader
from cluster.price import Price
from cluster.records import ObjectRef, Stamp
from cluster.shard_log import ShardLog, ShardState, read_shard_state
from cluster.shard_work import FinishedImage
from cluster.store import Store
from cluster.tables import read_parquet, to_parquet
from cluster.totals import all_lines, close, fold
from cluster.traffic import Requests
from conf.errors import LeaseLost
from conf.price_book import PriceBook, parse_book
from jobs.worker_ledger import add_lines
from operators.request import Request
from tests.chaos.books import check_books
from tests.chaos.bucket import Bucket

SHARDS, ROWS = 3, 4
PLAN = cast(PlanReader, SimpleNamespace(rows=SHARDS * ROWS, shards=SHARDS))
WHOSE = Attribution(job="j", project="p", tags={})

ns = st.integers(0, 10**13)
who = st.integers(0, 1)
step = st.one_of(
    st.tuples(st.just("idle"), who, ns),
    st.tuples(st.just("load"), who, ns),
    st.tuples(st.just("tick"), who, ns),
    st.tuples(st.just("ask"), who, st.integers(1, 5000)),
    st.tuples(st.just("open"), who, st.integers(0, SHARDS - 1)),
    st.tuples(st.just("commit"), who, st.integers(1, ROWS)),
    st.tuples(st.just("stamp"), who, st.just(0)),
    st.tuples(st.just("die"), who, st.just(0)),
    st.tuples(st.just("look"), who, st.just(0)),
    st.tuples(st.just("price"), who, st.integers(0, 10**11)),
)


@dataclass
class Worker:
    """``made``: nanoseconds of each row's image that no commit took yet."""

    name: str
    run: int
    price: Price
    lifetime: int = 0
    busy: int = 0
    overhead: int = 0
    asked: int = 0
    log: ShardLog | None = None
    made: dict[int, int] = field(default_factory=dict)

    def stamp(self) -> Stamp:
        """The evidence now; no two are of the same moment."""
        self.lifetime += 1
        return replace(
            STAMP,
            worker=self.name,
            run=self.run,
            price=self.price,
            lifetime_ns=self.lifetime,
            busy_ns=self.busy,
            overhead_ns=self.overhead,
            requests=Requests(writes=self.asked, reads=2 * self.asked),
        )


class History:
    """One job on a store of its own."""

    def __init__(self) -> None:
        self.store = Store(f"memory://money-{secrets.token_hex(6)}")
        self.runs = 0
        self.hired = 0
        self.crew: list[Worker] = []
        self.do("price", 0, 10**9)

    def do(self, what: str, number: int, amount: int) -> None:
        if what == "price":
            self.resume_at(amount)
            return
        if what == "look":
            self.look()
            return
        worker = self.crew[number]
        if what in {"idle", "load", "tick"}:
            worker.lifetime += amount
        if what == "load":
            worker.overhead += amount
        elif what == "tick":
            worker.busy += amount
            rows = sorted(worker.made)
            parts = split(amount, [1] * len(rows)) if rows else []
            for row, part in zip(rows, parts, strict=True):
                worker.made[row] += part
        elif what == "ask":
            worker.asked += amount
        elif what == "stamp":
            persist(self.store, worker.stamp())
        elif what == "die":
            self.crew[number] = self.hire()
        elif what == "open":
            self.open(worker, amount)
        elif what == "commit":
            self.commit(worker, amount)

    def resume_at(self, nano_per_hour: int) -> None:
        """Another run, at another price; the workers of the one before may live on as zombies."""
        self.runs += 1
        storage = {
            "url": "memory:",
            "per_gb_month": 1,
            "per_1000_writes": "5e-9",
            "per_1000_reads": "7e-9",
        }
        plain = {
            "version": f"v{self.runs}",
            "currency": "USD",
            "instances": [{"price_per_hour": f"{nano_per_hour}e-9"}],
            "storage": [storage] if self.runs % 2 else [],
        }
        self.book: PriceBook = parse_book(plain, "book")
        self.store.put(layout.prices(self.book.digest), self.book.to_json())
        run = {"prices": self.book.digest}
        self.store.put(layout.run(self.runs), json.dumps(run).encode())
        stayed = self.crew[1:]
        self.crew = [*stayed, *(self.hire() for _ in range(2 - len(stayed)))]

    def hire(self) -> Worker:
        self.hired += 1
        book = self.book
        price = replace(
            PRICE,
            nano_per_hour=book.instances[0].nano_per_hour,
            version=book.version,
            digest=book.digest,
            storage=book.storage[0] if book.storage else None,
        )
        return Worker(f"w{self.hired}", self.runs, price)

    def open(self, worker: Worker, shard_id: int) -> None:
        """Whoever held the shard does not hear of it."""
        try:
            log = ShardLog.open(
                self.store, shard_id, worker=worker.name, generation=0, now=lambda: "t"
            )
        except LeaseLost:
            return
        worker.log, worker.made = None, {}
        if not isinstance(log, ShardState):
            done = set[int]().union(*log.state.done())
            worker.log, worker.made = log, dict.fromkeys(set(range(ROWS)) - done, 0)

    def commit(self, worker: Worker, count: int) -> None:
        log, rows = worker.log, sorted(worker.made)[:count]
        if log is None or not rows:
            return
        images = [self.image(log.shard_id * ROWS + row, worker.made.pop(row)) for row in rows]
        payer = Payer(worker=worker.name, node="n", price=worker.price)
        lines = image_lines(images, [{}] * len(images), model="m", payer=payer)
        key = layout.attempt_object("ledger", log.shard_id, log.epoch, log.next_seq, "parquet")
        commit = replace(
            commit_of(log, rows),
            images=len(images),
            device_ns=sum(image.device_ns for image in images),
            amount_nano=sum(line.amount_nano or 0 for line in lines),
            ledger=ObjectRef(key=key, bytes=0, sha256=""),
            stamp=worker.stamp(),
        )
        self.store.put(key, to_parquet(ledger_table(lines, WHOSE)))
        try:
            log.commit(commit)
        except LeaseLost:
            worker.log, worker.made = None, {}

    @staticmethod
    def image(row_id: int, device_ns: int) -> FinishedImage:
        request = Request(
            image_id=f"{row_id:09d}-0",
            row_id=row_id,
            image_index=0,
            prompt="x",
            negative_prompt="",
            seed=0,
            width=8,
            height=8,
            steps=1,
            guidance_scale=1.0,
            sampler="ddim",
        )
        return FinishedImage(
            request=request,
            name="x",
            key="x",
            data=None,
            bytes=1,
            sha256="",
            device_ns=device_ns,
            truncated_tokens=0,
            started_at_ns=0,
            finished_at_ns=0,
        )

    def look(self) -> int:
        """Write the workers' ledger, as a report does; returns the bill."""
        totals = fold(self.store, PLAN)
        add_lines(self.store, ledger_table(all_lines(totals, 0), WHOSE))
        bill = close(totals, 0)
        assert sum(bill.amount.values()) == bill.total_amount
        assert sum(bill.ns.values()) == bill.total_ns
        return bill.total_amount


def used_lines(store: Store) -> list[dict[str, Any]]:
    refs = [
        item.commit.ledger
        for shard_id in range(SHARDS)
        for item in read_shard_state(store, shard_id).commits
    ]
    tables = [read_parquet(store.get(ref.key) or b"") for ref in refs if ref is not None]
    return [line for table in tables for line in table.to_pylist()]


def stamps(store: Store) -> dict[str, dict[str, Any]]:
    """Each worker's newest evidence, as JSON: from its stamp and from every commit that counts."""
    found = [json.loads(store.get(entry.key) or b"") for entry in store.listing("workers/")]
    for shard_id in range(SHARDS):
        for item in read_shard_state(store, shard_id).commits:
            found.append(json.loads(store.get(item.key) or b"")["stamp"])
    newest: dict[str, dict[str, Any]] = {}
    for stamp in found:
        before = newest.get(stamp["worker"])
        if before is None or stamp["lifetime_ns"] > before["lifetime_ns"]:
            newest[stamp["worker"]] = stamp
    return newest


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(step, min_size=10, max_size=60))
def test_after_any_history_every_lifetime_is_charged_once_at_its_own_price(
    steps: list[tuple[str, int, int]],
) -> None:
    history = History()
    for what, number, amount in steps:
        history.do(what, number, amount)
    billed = history.look()
    written = history.store.get(layout.WORKER_LEDGER)
    assert history.look() == billed
    assert history.store.get(layout.WORKER_LEDGER) == written, "writing twice changes nothing"
    bucket = cast(Bucket, SimpleNamespace(read=history.store.get))
    books = check_books(bucket, used=used_lines(history.store), stamps=stamps(history.store))
    assert books.problems == ()
    assert books.amount_nano == billed
