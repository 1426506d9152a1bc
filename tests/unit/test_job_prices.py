"""A job's prices: kept from run to run, changed by a resume, and never in hindsight."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
import yaml

from cluster import layout
from cluster.job_log import book_of_run, last_run
from cluster.money import as_decimal
from cluster.supervisor import RunEnd
from cluster.tables import read_parquet
from conf.errors import ConfigError, CorruptOutput
from conf.price_book import book_of
from jobs.cost import cost, export_focus, find_outputs
from jobs.finish import finish
from jobs.open_job import next_book, open_job
from jobs.status import status, status_lines
from jobs.summary import summary_lines
from jobs.verify import report_lines, verify
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job, work_on

ROWS = [{"prompt": f"picture {number}"} for number in range(8)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def priced_at(small: SmallJob, amount: str) -> SmallJob:
    """The job as resumed at another price."""
    pricing = replace(small.config.pricing, price_per_hour=amount)
    return replace(small, config=replace(small.config, pricing=pricing))


def lines_of(small: SmallJob) -> list[dict[str, Any]]:
    root = small.store.local_root
    assert root is not None
    return [
        line for path in root.glob("ledger/*.parquet") for line in pq.read_table(path).to_pylist()
    ]


def test_a_later_price_is_for_later_workers_and_changes_no_line_that_is_there(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **{"pricing.price_per_hour": "1"})
    before = {line["line_id"]: line for line in lines_of(small)}
    small = work_on(priced_at(small, "3"), shards=[1])
    finish(small.store, small.job, small.plan, generation=0, end=None, wall_s=0)
    lines = lines_of(small)
    for line in lines:
        assert before.get(line["line_id"], line) == line
    hourly = {line["worker"]: line["price_nano_per_hour"] for line in lines}
    assert hourly == {"r0001-w0000": 10**9, "r0002-w0000": 3 * 10**9}
    closing = small.bill()
    assert sum(line["amount_nano"] for line in lines) == closing.total_amount
    assert sum(line["gpu_ns"] for line in lines) == closing.total_ns
    assert verify(small.store).problems == ()


def test_a_resumed_job_is_priced_as_its_last_run_unless_asked_otherwise(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    entry = {"instance_type": "local", "price_per_hour": "2"}
    mine.write_text(yaml.safe_dump({"version": "mine", "currency": "USD", "instances": [entry]}))
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **{"pricing.book": str(mine)})
    output = small.store.url
    mine.unlink()  # it is in the output by now
    job, store = open_job(output)
    book = next_book(job, store, [])
    assert (book.version, job.config.pricing.book) == ("mine", str(mine))
    last = last_run(store)
    assert last is not None
    assert book_of_run(store, last) == book
    given = ["pricing.price_per_hour=7", "pricing.region=eu"]
    job, store = open_job(output, given)
    assert job.config.pricing.region == "eu"
    assert next_book(job, store, given).instances[0].nano_per_hour == 7 * 10**9
    with pytest.raises(ConfigError, match="cannot read price book"):
        next_book(job, store, [f"pricing={mine}"])


def test_a_job_keeps_its_currency(tmp_path: Path) -> None:
    euros = tmp_path / "euros.yaml"
    euros.write_text("version: e\ncurrency: EUR\n")
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    with pytest.raises(ConfigError, match=r"'pricing\.currency=EUR' cannot be changed"):
        open_job(small.store.url, ["pricing.currency=EUR"])
    given = [f"pricing={euros}"]
    job, store = open_job(small.store.url, given)
    with pytest.raises(ConfigError, match=r"euros\.yaml is in EUR; this job is in USD"):
        next_book(job, store, given)


def test_a_price_book_that_is_damaged_is_told(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    last = last_run(small.store)
    assert last is not None
    key = layout.prices(last.prices)
    small.store.put(key, b'{"version": 1}')
    with pytest.raises(CorruptOutput, match=f"{key} is no price book"):
        book_of_run(small.store, last)


def test_what_has_no_price_is_said_and_is_in_no_amount(tmp_path: Path) -> None:
    changes = {"pricing.instance_type": "p5", "pricing.region": "us"}
    small = run_small_job(tmp_path, ROWS, **TINY, **changes)
    ended = finish(small.store, small.job, small.plan, generation=0, end=None, wall_s=0)
    assert {line["amount_nano"] for line in lines_of(small)} == {None}
    assert {line["instance_type"] for line in lines_of(small)} == {"p5"}
    says = "unpriced   1 of 1 worker: prices local-2 have no entry for a node of which is known: "
    why = (
        "region us, instance_type p5; the book has the instance types local; pricing.book=… takes "
        "another; their time is in no"
    )
    assert "cost       unknown: no worker has a price" in summary_lines(small.job, ended, 0)
    assert f"{says}{why} amount" in summary_lines(small.job, ended, 0)
    assert f"{says}{why} amount" in status_lines(status(small.store))
    found = verify(small.store)
    assert found.problems == ()
    assert f"{says}{why} amount" in report_lines(found)
    root = small.store.local_root
    assert root is not None
    page = (root / "report.html").read_text()
    assert "1 worker on us, p5: no price (prices local-2)" in page
    assert "Unpriced: 1 of 1 worker: prices local-2 have no entry" in page
    assert "0 USD" not in page
    assert "0.000000000" not in page
    assert page.count(">unpriced<") == 6, "the headline, four kinds of time and the bill"
    card = (root / "README.md").read_text()
    assert "| cost | unpriced |" in card
    end = RunEnd(finished=True, reason="", snapshot=None, restarts=0)  # type: ignore[arg-type]
    assert finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=0).finished
    manifest = json.loads(small.store.get(layout.MANIFEST) or b"")
    assert (manifest["cost"], manifest["workers_unpriced"]) == (None, 1)
    assert verify(small.store).problems == ()
    key = layout.manifest(0)
    place = root / key
    place.write_text(json.dumps({**manifest, "cost": "0"}))
    assert verify(small.store).problems == (f"'cost' in {key} is 0; expected None",)


def test_a_part_of_the_workers_may_have_a_price(tmp_path: Path) -> None:
    changes = {"pricing.instance_type": "p5"}
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **changes)
    closing = work_on(priced_at(small, "3"), shards=[1]).bill()
    assert (closing.workers, len(closing.unpriced)) == (2, 1)
    assert closing.total_amount == sum(closing.amount.values()) > 0
    ended = finish(small.store, small.job, small.plan, generation=0, end=None, wall_s=0)
    (said,) = [line for line in summary_lines(small.job, ended, 0) if line.startswith("cost ")]
    assert "an image" not in said, "what is not known of some is no average"
    root = small.store.local_root
    assert root is not None
    assert "an image" not in (root / "README.md").read_text().split("| model |")[0]
    page = (root / "report.html").read_text()
    assert "what has a price of it" in page
    per_image = page.split("<span>Per image</span>")[1][:40]
    assert "—" in per_image


def test_the_prices_of_a_job_are_no_part_of_what_it_is(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, ROWS, **TINY)
    assert priced_at(small, "3").config.digest() == small.config.digest()
    stored = json.loads(small.store.get("job.json") or b"{}")
    assert stored["config"]["pricing"]["currency"] == book_of(small.config.pricing).currency


def test_a_job_on_an_object_store_pays_for_its_requests_and_for_keeping_its_images(
    tmp_path: Path,
) -> None:
    book = tmp_path / "prices.yaml"
    entry = {"price_per_hour": "2"}
    kept = {"url": "memory:", "per_gb_month": 10, "per_1000_writes": 4, "per_1000_reads": "0.5"}
    plain = {"version": "m", "currency": "USD", "instances": [entry], "storage": [kept]}
    book.write_text(yaml.safe_dump(plain))
    changes = {
        "output.path": f"memory://{tmp_path.name}-{uuid4().hex}",
        "pricing.book": str(book),
        "pricing.storage_months": 12,
    }
    small = run_small_job(tmp_path, ROWS, **TINY, **changes)
    ended = finish(small.store, small.job, small.plan, generation=0, end=None, wall_s=0)
    data = small.store.get(layout.WORKER_LEDGER) or b""
    lines = {line["line_id"]: line for line in read_parquet(data).to_pylist()}
    stamp = small.totals().workers["r0001-w0000"].stamp
    assert stamp is not None
    assert stamp.requests.writes > 8
    assert lines["r0001-w0000:writes"]["amount_nano"] == stamp.requests.writes * 4_000_000
    assert lines["r0001-w0000:reads"]["amount_nano"] == stamp.requests.reads * 500_000
    assert lines["storage"]["amount_nano"] == ended.totals.image_bytes * 120
    assert set(ended.bill.amount) == {"used", "wasted", "overhead", "idle", "requests", "storage"}
    assert ended.bill.total_amount == sum(ended.bill.amount.values())
    found = verify(small.store)
    assert found.problems == ()
    assert found.bill == ended.bill
    page = (small.store.get("report.html") or b"").decode()
    assert "what the store was asked" in page
    assert "keeping the images" in page


def test_requests_without_a_price_are_told(tmp_path: Path) -> None:
    changes = {"output.path": f"memory://{tmp_path.name}-{uuid4().hex}"}
    small = run_small_job(tmp_path, ROWS, **TINY, **changes)
    says = (
        "unpriced   2 lines of storage and requests: the price book has no storage price for this"
    )
    assert f"{says} output" in status_lines(status(small.store))


def test_what_the_last_run_was_told_of_storage_holds_for_whoever_looks_at_the_job(
    tmp_path: Path,
) -> None:
    changes = {"output.path": f"memory://{tmp_path.name}-{uuid4().hex}"}
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **changes)
    book = tmp_path / "prices.yaml"
    kept = {"url": "memory:", "per_gb_month": 10, "per_1000_writes": 4, "per_1000_reads": "0.5"}
    entry = {"price_per_hour": "2"}
    plain = {"version": "m", "currency": "USD", "instances": [entry], "storage": [kept]}
    book.write_text(yaml.safe_dump(plain))
    pricing = replace(small.config.pricing, book=str(book), storage_months=3)
    config = replace(small.config, pricing=pricing)
    small = work_on(replace(small, config=config), shards=[1])
    bill = status(small.store).bill
    assert bill.amount["storage"] > 0
    (told,) = cost([small.store.url]).totals.to_pylist()
    assert told["storage"] == as_decimal(bill.amount["storage"]), "unfinished, with the last run's"
    focus = export_focus(find_outputs([small.store.url]), tmp_path / "focus.csv")
    assert focus.amounts == (("USD", bill.total_amount),)
    job, store = open_job(small.store.url)
    assert job.config.pricing == pricing
    end = RunEnd(finished=True, reason="", snapshot=None, restarts=0)  # type: ignore[arg-type]
    ended = finish(store, job, small.plan, generation=0, end=end, wall_s=0)
    assert ended.finished
    assert ended.bill.amount["storage"] == ended.totals.image_bytes * 30
    found = verify(store)
    assert (found.problems, found.outlived, found.bill) == ((), "", ended.bill)
    assert status(store).bill == ended.bill
