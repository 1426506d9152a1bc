"""Records survive JSON, and nothing else is taken for one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.price import Price
from cluster.records import (
    Accepted,
    Commit,
    ObjectRef,
    Opening,
    RetryRecord,
    RunRecord,
    Stamp,
    commit_from_json,
    count_of,
    offsets_of,
    opening_from_json,
    ranges_of,
    retry_from_json,
    run_from_json,
    stamp_from_json,
    to_json,
)
from cluster.traffic import Requests
from conf.errors import CorruptOutput
from conf.price_book import StoragePrice
from conf.schema import BudgetConfig, PricingConfig

texts = st.sampled_from(["", "w-1", "shards/00000001-000001.tar", 'Ünïcode \u2028 "quoted"'])
counts = st.integers(0, 2**53)
offsets = st.sets(st.integers(0, 30), max_size=8)
refs = st.builds(ObjectRef, key=texts, bytes=counts, sha256=texts)
storages = st.builds(
    StoragePrice,
    url=texts,
    nano_per_gb_month=counts,
    nano_per_1000_writes=counts,
    nano_per_1000_reads=counts,
    nano_per_gb_egress=counts,
)
prices = st.builds(
    Price,
    nano_per_hour=st.none() | counts,
    currency=texts,
    version=texts,
    digest=texts,
    provider=st.none() | texts,
    region=st.none() | texts,
    instance_type=st.none() | texts,
    purchase_option=st.none() | texts,
    storage=st.none() | storages,
    unpriced=texts,
)
stamps = st.builds(
    Stamp,
    worker=texts,
    seq=counts,
    run=counts,
    node=texts,
    gpus=texts,
    price=prices,
    started_at=texts,
    lifetime_ns=counts,
    busy_ns=counts,
    overhead_ns=counts,
    requests=st.builds(Requests, writes=counts, reads=counts, read_bytes=counts),
    ticks=counts,
    occupied=counts,
    offered=counts,
    other_shapes=counts,
    starved=counts,
    closed=st.booleans(),
)
commits = st.builds(
    Commit,
    shard_id=counts,
    epoch=counts,
    seq=counts,
    attempt=counts,
    rows=offsets.map(ranges_of),
    quarantined=offsets.map(ranges_of),
    images=counts,
    image_bytes=counts,
    device_ns=counts,
    amount_nano=counts,
    metadata=st.none() | refs,
    quarantine=st.none() | refs,
    ledger=st.none() | refs,
    objects=st.lists(refs, max_size=3).map(tuple),
    stamp=stamps,
    written_at=texts,
)
accepted = st.builds(Accepted, key=texts, quarantine=st.booleans())
openings = st.builds(
    Opening,
    shard_id=counts,
    epoch=counts,
    attempt=counts,
    worker=texts,
    nonce=texts,
    opened_at=texts,
    accepted=st.lists(accepted, max_size=4).map(tuple),
    sealed=st.booleans(),
    generation=counts,
)
maybe = st.none() | texts
pricings = st.builds(
    PricingConfig,
    book=texts,
    currency=maybe,
    price_per_hour=maybe,
    provider=maybe,
    region=maybe,
    instance_type=maybe,
    purchase_option=maybe,
    storage_months=st.floats(0, 99),
)
runs = st.builds(
    RunRecord,
    run=counts,
    generation=counts,
    started_at=texts,
    workers=counts,
    version=texts,
    pricing=pricings,
    prices=texts,
    budget=st.builds(
        BudgetConfig,
        max_cost=maybe,
        max_hours=st.none() | st.floats(0, 9),
        project_max_hours=st.none() | st.floats(0, 9),
        alert=maybe,
    ),
    nonce=texts,
)
retries = st.builds(
    RetryRecord,
    generation=counts,
    requested_at=texts,
    shards=st.lists(counts, max_size=4).map(tuple),
    nonce=texts,
)
Reader = Callable[[bytes, str], Any]
READERS: dict[str, Reader] = {
    "Opening": opening_from_json,
    "Commit": commit_from_json,
    "Stamp": stamp_from_json,
    "RunRecord": run_from_json,
    "RetryRecord": retry_from_json,
}


@settings(max_examples=60, deadline=None)
@given(record=st.one_of(commits, openings, stamps, runs, retries))
def test_a_record_is_the_same_after_json(record: Any) -> None:
    data = to_json(record)
    assert READERS[type(record).__name__](data, "key") == record
    assert to_json(READERS[type(record).__name__](data, "key")) == data


@settings(max_examples=40, deadline=None)
@given(record=st.one_of(commits, openings, stamps, runs, retries))
def test_a_record_is_never_taken_for_another_kind(record: Any) -> None:
    for kind, read in READERS.items():
        if kind != type(record).__name__:
            with pytest.raises(CorruptOutput, match=f"holds no record of kind {kind}, schema 1"):
                read(to_json(record), "leases/x.json")


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"schema": 1}'])
def test_what_is_no_record_is_corrupt_output_that_names_the_key(kind: str, data: bytes) -> None:
    with pytest.raises(
        CorruptOutput, match=r"^commits/7\.json is damaged: it .*; 'imagemill verify OUTPUT' tells"
    ):
        READERS[kind](data, "commits/7.json")


@settings(max_examples=40, deadline=None)
@given(record=st.one_of(commits, openings, stamps, runs, retries), data=st.data())
def test_a_record_with_a_field_less_or_more_is_corrupt_output(
    record: Any, data: st.DataObject
) -> None:
    plain = json.loads(to_json(record))
    kind = plain["kind"]
    name = data.draw(st.sampled_from(sorted(set(plain) - {"kind", "schema"})))
    for changed in (
        {key: value for key, value in plain.items() if key != name},
        {**plain, "surprise": 1},
    ):
        with pytest.raises(CorruptOutput, match=r"^the/key"):
            READERS[kind](json.dumps(changed).encode(), "the/key")


@settings(max_examples=40, deadline=None)
@given(record=st.one_of(commits, openings, stamps, runs, retries))
def test_a_record_of_a_later_schema_is_refused(record: Any) -> None:
    plain = {**json.loads(to_json(record)), "schema": 2}
    with pytest.raises(CorruptOutput, match=r"no record of kind \w+, schema 1"):
        READERS[plain["kind"]](json.dumps(plain).encode(), "key")


@given(found=offsets)
def test_ranges_hold_exactly_their_offsets_in_the_fewest_ranges(found: set[int]) -> None:
    ranges = ranges_of(found)
    assert offsets_of(ranges) == found
    assert count_of(ranges) == len(found)
    assert all(start < end for start, end in ranges)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ranges))


def test_json_is_canonical_one_line() -> None:
    record = RetryRecord(generation=1, requested_at="t", shards=(2, 3), nonce="n")
    assert to_json(record) == (
        b'{"generation":1,"kind":"RetryRecord","nonce":"n","requested_at":"t","schema":1,'
        b'"shards":[2,3]}\n'
    )
