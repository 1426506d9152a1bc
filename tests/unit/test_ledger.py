"""The ledger is a table of facts: each line says alone what it is, whose it is and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from shard_records import PRICE, STAMP

from cluster.ledger import LEDGER, Attribution, ledger_table
from cluster.money import close_worker
from tests.small_jobs import SmallJob, run_small_job

ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "tags": "customer=acme, rush", "num_images": 1, "steps": 2},
    {"prompt": "b", "tags": None, "num_images": 2},
    {"prompt": "c", "tags": '{"customer": "bolt", "shop": 7}', "steps": 3},
]
TINY = {"sampling.width": 16, "sampling.height": 24, "sampling.steps": 2, "input.shard_rows": 2}
TAGS = {"job.project": "cats", "job.tags": {"team": "blue", "customer": "us"}}


def lines_of(small: SmallJob) -> Iterator[dict[str, Any]]:
    root = small.store.local_root
    assert root is not None
    for path in sorted((root / "ledger").glob("0*.parquet")):
        table = pq.read_table(path)
        assert table.schema.names == LEDGER.names
        assert pa.types.is_map(table.schema.field("tags").type)
        plain = [field for field in table.schema if field.name != "tags"]
        assert plain == [field for field in LEDGER if field.name != "tags"]
        assert table.schema.metadata == LEDGER.metadata
        for line in table.to_pylist():
            yield {**line, "tags": dict(line["tags"])}


def test_the_line_of_an_image_says_all_that_a_question_may_need(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY, **TAGS)
    lines = {line["image_id"]: line for line in lines_of(small)}
    assert set(lines) == {"000000000-0", "000000001-0", "000000001-1", "000000002-0"}
    line = lines["000000002-0"]
    assert line["line_id"] == "r0001-w0000:000000002-0"
    assert (line["kind"], line["job"], line["project"]) == ("used", "small", "cats")
    assert (line["worker"], line["node"]) == ("r0001-w0000", "here")
    assert (line["row_id"], line["model"]) == (2, "simulated:shapes")
    assert (line["width"], line["height"], line["steps"]) == (16, 24, 3)
    assert line["sampler"] == small.config.model.sampler
    assert line["period_start"] <= line["period_end"]
    assert str(line["period_start"].tzinfo) == "UTC"
    assert line["gpu_ns"] > 0
    assert line["amount_nano"] == line["gpu_ns"] * line["price_nano_per_hour"] // (3600 * 10**9)
    assert (line["currency"], line["provider"], line["region"]) == ("USD", "local", None)
    assert (line["instance_type"], line["purchase_option"]) == ("local", "owned")
    assert line["price_version"] == "local-2"
    assert len(line["price_digest"]) == 16
    assert (line["quantity"], line["unit"], line["price_nano_per_unit"]) == (None, None, None)


def test_a_rows_tag_goes_before_the_jobs_and_charges_its_customer(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY, **TAGS)
    tags = {line["image_id"]: line["tags"] for line in lines_of(small)}
    assert tags["000000000-0"] == {"team": "blue", "customer": "acme", "rush": "true"}
    assert tags["000000001-0"] == tags["000000001-1"] == {"team": "blue", "customer": "us"}
    assert tags["000000002-0"] == {"team": "blue", "customer": "bolt", "shop": "7"}


def test_the_lines_of_a_workers_other_time_name_no_image() -> None:
    stamp = replace(STAMP, lifetime_ns=10 * 10**9, busy_ns=4 * 10**9, overhead_ns=10**9)
    lines = close_worker(stamp, used_ns=3 * 10**9, used_amount=83333)
    found = ledger_table(lines, Attribution(job="j", project="p", tags={"team": "blue"}))
    rows = found.to_pylist()
    assert [row["kind"] for row in rows] == ["wasted", "overhead", "idle"]
    assert [row["line_id"] for row in rows] == ["w:wasted", "w:overhead", "w:idle"]
    for row in rows:
        names = ("image_id", "row_id", "model", "sampler", "width", "height", "steps")
        assert [row[name] for name in names] == [None] * len(names)
        assert row["tags"] == [("team", "blue")]
        assert (row["period_end"] - row["period_start"]).total_seconds() == 10
        assert row["period_start"].isoformat() == STAMP.started_at


def test_what_has_no_price_has_no_amount(tmp_path: Path) -> None:
    stamp = replace(STAMP, price=replace(PRICE, nano_per_hour=None, unpriced="unknown machine"))
    lines = close_worker(stamp, used_ns=0, used_amount=0)
    rows = ledger_table(lines, Attribution(job="j", project="p", tags={})).to_pylist()
    assert [(row["amount_nano"], row["price_nano_per_hour"]) for row in rows] == [(None, None)] * 3


def test_words_that_repeat_are_stored_once() -> None:
    words = {name for name in LEDGER.names if pa.types.is_dictionary(LEDGER.field(name).type)}
    texts = {name for name in LEDGER.names if LEDGER.field(name).type == pa.string()}
    assert texts == {"line_id", "corrects", "image_id"}
    assert {"kind", "job", "project", "model", "instance_type", "price_version"} <= words
