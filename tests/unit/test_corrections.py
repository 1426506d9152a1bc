"""Lines of the ledger that are there stay; what has changed since is a line of its own."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_records import PRICE, STAMP

from cluster.corrections import standing, with_corrections
from cluster.ledger import LEDGER, Attribution, ledger_table
from cluster.money import charge
from cluster.tables import read_parquet, to_parquet
from cluster.totals import Totals, WorkerUse, all_lines, close
from cluster.traffic import Requests
from conf.price_book import StoragePrice

WHOSE = Attribution(job="j", project="p", tags={"team": "blue"})
S3 = StoragePrice(
    url="s3://",
    nano_per_gb_month=23_000_000,
    nano_per_1000_writes=5_000_000,
    nano_per_1000_reads=400_001,
    nano_per_gb_egress=90_000_000,
)


def totals_of(
    *workers: tuple[int, int, int, int],
    asked: int = 0,
    price: int | None = 10**9 + 7,
    storage: StoragePrice | None = S3,
    digest: str = PRICE.digest,
) -> Totals:
    """Workers by their used, wasted, overhead and idle nanoseconds."""
    totals = Totals(image_bytes=1_500_000_001)
    at = replace(PRICE, nano_per_hour=price, storage=storage, digest=digest)
    for number, (used, wasted, overhead, idle) in enumerate(workers):
        name = f"w{number}"
        stamp = replace(
            STAMP,
            worker=name,
            price=at,
            lifetime_ns=used + wasted + overhead + idle,
            busy_ns=used + wasted,
            overhead_ns=overhead,
            requests=Requests(writes=asked, reads=2 * asked, read_bytes=3 * asked),
        )
        totals.workers[name] = WorkerUse(
            used_ns=used, used_amount=charge(at, used) or 0, stamp=stamp
        )
    return totals


def table_of(totals: Totals, months: float = 0) -> pa.Table:
    return ledger_table(all_lines(totals, months), WHOSE)


def sums(table: pa.Table) -> dict[str, tuple[int, Decimal, int]]:
    """Line -> time, quantity and amount, its corrections included."""
    found: dict[str, tuple[int, Decimal, int]] = {}
    for line in table.to_pylist():
        name = line["corrects"] or line["line_id"]
        ns, quantity, amount = found.get(name, (0, Decimal(0), 0))
        found[name] = (
            ns + (line["gpu_ns"] or 0),
            quantity + (line["quantity"] or 0),
            amount + (line["amount_nano"] or 0),
        )
    return {name: parts for name, parts in found.items() if any(parts)}


part = st.integers(0, 10**13)
worker = st.tuples(part, part, part, part)
looks = st.lists(
    st.tuples(st.lists(worker, max_size=3), st.integers(0, 9), st.sampled_from([0, 0.5, 12])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(looks=looks)
def test_whatever_is_learnt_later_the_lines_add_up_and_none_that_was_there_changes(
    looks: list[tuple[list[tuple[int, int, int, int]], int, float]],
) -> None:
    """Each look at a job may know other lifetimes, requests, and months of storage."""
    ledger = LEDGER.empty_table()
    for workers, asked, months in looks:
        before = ledger.to_pylist()
        totals = totals_of(*workers, asked=asked)
        now = table_of(totals, months)
        ledger = with_corrections(ledger, now)
        assert ledger.to_pylist()[: len(before)] == before
        assert sums(ledger) == sums(now)
        again = with_corrections(ledger, now)
        assert again.num_rows == ledger.num_rows, "writing twice changes nothing"
        ids = ledger["line_id"].to_pylist()
        assert len(set(ids)) == len(ids)
        bill = close(totals, months)
        used = sum(use.used_amount for use in totals.workers.values())
        assert sum(parts[2] for parts in sums(ledger).values()) + used == bill.total_amount
        assert sum(bill.amount.values()) == bill.total_amount


def charged(table: pa.Table) -> dict[tuple[object, ...], list[object]]:
    """What is charged for each line at each price; None where there is no amount."""
    found: dict[tuple[object, ...], list[object]] = {}
    for line in table.to_pylist():
        prices = ("price_nano_per_hour", "price_nano_per_unit", "price_digest")
        key = (line["corrects"] or line["line_id"], *(line[name] for name in prices))
        sums = found.setdefault(key, [0, Decimal(0), None])
        sums[0] += line["gpu_ns"] or 0
        sums[1] += line["quantity"] or 0
        if line["amount_nano"] is not None:
            sums[2] = (sums[2] or 0) + line["amount_nano"]
    return {key: parts for key, parts in found.items() if parts[0] or parts[1] or parts[2]}


prices = st.fixed_dictionaries(
    {
        "price": st.sampled_from([None, 0, 10**9 + 7, 3 * 10**9]),
        "storage": st.sampled_from([None, S3, replace(S3, nano_per_gb_month=7)]),
        "digest": st.sampled_from(["d1", "d2"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(looks=st.lists(st.tuples(looks.map(lambda found: found[0]), prices), min_size=1, max_size=5))
def test_whatever_becomes_of_the_prices_the_standing_lines_are_those_of_the_newest_look(
    looks: list[tuple[tuple[list[tuple[int, int, int, int]], int, float], dict[str, Any]]],
) -> None:
    """A line may gain a price, lose it, or have another one."""
    ledger = LEDGER.empty_table()
    for (workers, asked, months), at in looks:
        before = ledger.to_pylist()
        now = table_of(totals_of(*workers, asked=asked, **at), months)
        ledger = with_corrections(ledger, now)
        assert ledger.to_pylist()[: len(before)] == before
        assert with_corrections(ledger, now).num_rows == ledger.num_rows
        assert charged(ledger) == charged(standing(ledger)) == charged(now)
        assert sums(ledger) == sums(now)
        assert unknown(ledger) == unknown(now), "one a line, and none for what has a price now"
        assert len(set(ledger["line_id"].to_pylist())) == ledger.num_rows
        for line in ledger.to_pylist():
            assert_is_price_by_quantity(line)


def unknown(table: pa.Table) -> list[str]:
    """The lines whose cost is not known; those of nothing left out."""
    lines = standing(table).to_pylist()
    return sorted(
        line["corrects"] or line["line_id"] for line in lines if line["amount_nano"] is None
    )


def assert_is_price_by_quantity(line: dict[str, Any]) -> None:
    """To the unit, for rounding, and for what a worker's images left over."""
    hourly, unit = line["price_nano_per_hour"], line["price_nano_per_unit"]
    if hourly is None and unit is None:
        assert line["amount_nano"] is None
        return
    hours = Fraction(line["gpu_ns"] or 0, 3600 * 10**9)
    exact = hours * (hourly or 0) + Fraction(line["quantity"] or 0) * (unit or 0)
    assert abs(line["amount_nano"] - exact) <= 3, line["line_id"]


def test_a_price_that_is_lost_takes_the_line_back_and_one_that_is_found_charges_it_anew() -> None:
    asked, month = (0, 0, 0, 10**9), 1.0
    priced = table_of(totals_of(asked), month)
    unpriced = table_of(totals_of(asked, storage=None), month)
    ledger = LEDGER.empty_table()
    for now in (priced, unpriced, unpriced, priced):
        ledger = with_corrections(ledger, now)
    told = [
        (line["line_id"], line["quantity"], line["price_nano_per_unit"], line["amount_nano"])
        for line in ledger.to_pylist()
        if line["kind"] == "storage"
    ]
    kept, unit, amount = Decimal("1.500000001"), 23_000_000, 34_500_000
    assert told == [
        ("storage", kept, unit, amount),
        ("storage:1", -kept, unit, -amount),
        ("storage:2", kept, None, None),
        ("storage:3", -kept, None, None),
        ("storage:4", kept, unit, amount),
    ]
    assert unknown(ledger) == []


def test_an_amount_that_stands_without_a_price_is_taken_back() -> None:
    unpriced = table_of(totals_of((0, 0, 0, 0), storage=None), 1)
    lines = [line for line in unpriced.to_pylist() if line["kind"] == "storage"]
    wrong = {"line_id": "storage:1", "corrects": "storage", "quantity": 0, "amount_nano": -9}
    written = pa.Table.from_pylist([*lines, lines[0] | wrong], schema=LEDGER)
    now = pa.Table.from_pylist(lines, schema=LEDGER)
    mended = with_corrections(written, now)
    assert charged(mended)[("storage", None, None, PRICE.digest)][2] == 0
    assert mended["amount_nano"].to_pylist() == [None, -9, 9]
    assert with_corrections(mended, now).num_rows == 3


def test_a_correction_names_what_it_corrects_and_says_the_difference() -> None:
    first = with_corrections(LEDGER.empty_table(), table_of(totals_of((0, 5, 0, 10**9))))
    assert set(first["corrects"].to_pylist()) == {None}
    longer = with_corrections(first, table_of(totals_of((0, 3, 0, 3 * 10**9))))
    added = longer.slice(first.num_rows).to_pylist()
    named = [(line["line_id"], line["corrects"], line["gpu_ns"]) for line in added]
    assert named == [("w0:wasted:1", "w0:wasted", -2), ("w0:idle:1", "w0:idle", 2 * 10**9)]
    third = with_corrections(longer, table_of(totals_of((0, 3, 0, 4 * 10**9))))
    assert third["line_id"].to_pylist()[-1] == "w0:idle:2"


def test_a_worker_without_a_price_is_corrected_in_time_alone() -> None:
    first = with_corrections(LEDGER.empty_table(), table_of(totals_of((0, 0, 0, 5), price=None)))
    longer = with_corrections(first, table_of(totals_of((0, 0, 0, 9), price=None)))
    (line,) = longer.slice(first.num_rows).to_pylist()
    assert (line["gpu_ns"], line["amount_nano"]) == (4, None)
    now = table_of(totals_of((0, 0, 0, 30), price=None))
    thrice = standing(with_corrections(longer, now)).to_pylist()
    assert [(line["line_id"], line["gpu_ns"]) for line in thrice] == [("w0:idle", 30)]


def test_the_ledger_as_it_is_read_back_can_be_added_to() -> None:
    first = with_corrections(LEDGER.empty_table(), table_of(totals_of((1, 2, 3, 4), asked=7), 2))
    read = read_parquet(to_parquet(first)).select(LEDGER.names).cast(LEDGER)
    assert read.to_pylist() == first.to_pylist()
    more = with_corrections(read, table_of(totals_of((1, 2, 3, 9), (1, 1, 1, 1), asked=8), 2))
    assert sums(more) == sums(table_of(totals_of((1, 2, 3, 9), (1, 1, 1, 1), asked=8), 2))


def test_requests_and_storage_are_lines_by_quantity_and_unit() -> None:
    totals = totals_of((0, 0, 0, 10**9), asked=1234)
    lines = {line["line_id"]: line for line in table_of(totals, 1.5).to_pylist()}
    writes, reads, egress = (lines[f"w0:{name}"] for name in ("writes", "reads", "egress"))
    assert (writes["kind"], writes["unit"]) == ("requests", "1000 writes")
    assert (writes["quantity"], writes["price_nano_per_unit"]) == (Decimal("1.234"), 5_000_000)
    assert writes["amount_nano"] == 6_170_000
    assert (writes["gpu_ns"], writes["price_nano_per_hour"], writes["instance_type"]) == (None,) * 3
    assert reads["amount_nano"] == 987_202  # 987,202.468
    assert (egress["kind"], egress["unit"], egress["quantity"]) == (
        "egress",
        "GB",
        Decimal("0.000003702"),
    )
    assert egress["amount_nano"] == 333  # 333.18
    storage = lines["storage"]
    assert (storage["kind"], storage["unit"], storage["worker"]) == ("storage", "GB-month", None)
    assert storage["quantity"] == Decimal("2.250000002")  # 1.500000001 GB for a month and a half
    assert storage["amount_nano"] == 51_750_000  # 51,750,000.0345
    assert (storage["period_end"] - storage["period_start"]).total_seconds() == 1095 * 3600
    assert {dict(line["tags"])["team"] for line in lines.values()} == {"blue"}


def test_requests_that_have_no_price_are_counted_and_told() -> None:
    totals = totals_of((0, 0, 0, 10**9), asked=5)
    use = totals.workers["w0"]
    assert use.stamp is not None
    use.stamp = replace(use.stamp, price=replace(use.stamp.price, storage=None))
    lines = {line["line_id"]: line for line in table_of(totals, 1).to_pylist()}
    assert set(lines) == {"w0:wasted", "w0:overhead", "w0:idle", "w0:writes", "w0:reads", "storage"}
    assert [lines[name]["amount_nano"] for name in ("w0:writes", "w0:reads", "storage")] == [
        None
    ] * 3
    assert close(totals, 1).unpriced_lines == 3
