"""A quote held against the job: what is kept, what is compared, and where it is told."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cluster import layout
from cluster.coordinator import Snapshot
from cluster.money import as_decimal
from cluster.supervisor import RunEnd
from jobs.execute import result_of
from jobs.figures import ReportFacts
from jobs.finish import Finish, finish
from jobs.quote.against import Against, against, against_lines
from jobs.quote.estimate import Interval
from jobs.quote.kept import (
    KeptOffer,
    KeptQuote,
    quote_of,
    remember_quote,
    remembered_quote,
    write_quote,
)
from jobs.report import build_report
from jobs.summary import summary_lines
from tests.browser import CHROMIUM, look
from tests.small_jobs import SmallJob, run_small_job, work_on

FINISHED = RunEnd(finished=True, reason="", snapshot=cast(Snapshot, None), restarts=0)
WIDE = Interval(middle=2.0, low=1e-9, high=1e6)
NARROW = Interval(middle=3600.0, low=3599.0, high=3601.0)
HOURLY = 100_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imagemill" / "quotes"


@pytest.fixture
def small(tmp_path: Path) -> SmallJob:
    return run_small_job(tmp_path, [{"prompt": f"a house {n}"} for n in range(6)])


def offer(**changes: Any) -> KeptOffer:
    plain = KeptOffer(
        name="local local owned",
        instance_type="local",
        nano_per_hour=HOURLY,
        workers=1,
        seconds=WIDE,
        cost=WIDE.times(10**9),
    )
    return replace(plain, **changes)


def quote_for(small: SmallJob, *offers: KeptOffer, **changes: Any) -> KeptQuote:
    plain = KeptQuote(
        asked_at="2026-11-20T09:30:00+00:00",
        digest=small.job.digest,
        model_revision=small.job.model_revision,
        rows=small.plan.rows,
        tried=24,
        earlier=3,
        currency="USD",
        offers=offers or (offer(),),
    )
    return replace(plain, **changes)


def compared(small: SmallJob, *offers: KeptOffer, **changes: Any) -> Against:
    quote = quote_for(small, *offers, **changes)
    found = against(quote, small.totals(), small.bill(), small.job.currency)
    assert found is not None
    return found


def ended(small: SmallJob) -> Finish:
    return finish(small.store, small.job, small.plan, generation=0, end=FINISHED, wall_s=1.0)


def test_a_quote_is_the_same_after_it_was_written(small: SmallJob) -> None:
    quote = quote_for(
        small,
        offer(paid=WIDE),
        offer(instance_type=None, cost=Interval(middle=1, low=None, high=None)),
    )
    write_quote(small.store, quote)
    assert quote_of(small.store) == quote
    remember_quote(quote)
    assert remembered_quote(small.job, small.plan.rows) == quote


def test_a_quote_of_another_input_or_model_is_not_held_against_a_job(
    small: SmallJob, caplog: pytest.LogCaptureFixture
) -> None:
    assert remembered_quote(small.job, 6) is None
    remember_quote(quote_for(small))
    with caplog.at_level(logging.INFO):
        assert remembered_quote(small.job, 7) is None
        changed = replace(small.job, model_revision="new")
        assert remembered_quote(changed, 6) is None
        remember_quote(quote_for(small, servers="owned"))
        assert remembered_quote(small.job, 6) is None
    assert "not held against this job, which was to pay for owned servers (tri" in caplog.text
    assert "not held against this job, which had 6 rows and now has 7" in caplog.text
    assert "not held against this job, which had a model of revision simulated" in caplog.text


def test_only_the_newest_quotes_stay_in_the_cache(
    small: SmallJob, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.quote.kept._MOST", 2)
    for age, name in enumerate("cba"):
        remember_quote(quote_for(small, digest=name))
        os.utime(cache / f"{name}.json", (1e9 - age, 1e9 - age))
    remember_quote(quote_for(small, digest="d"))
    assert sorted(path.stem for path in cache.iterdir()) == ["c", "d"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema": 1, "kind": "Quote"}'])
def test_a_quote_that_cannot_be_read_is_left_out_with_a_warning(
    small: SmallJob, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    small.store.put(layout.QUOTE, content)
    with caplog.at_level(logging.WARNING):
        assert quote_of(small.store) is None
    assert f"{small.store.path(layout.QUOTE)} is no quote and is left out" in caplog.text


def test_cost_and_times_are_compared_each_with_its_interval(small: SmallJob) -> None:
    low = Interval(middle=2e9, low=1.9e9, high=2.1e9)
    found = compared(small, offer(cost=low))
    assert found.cost is not None
    assert found.worker_seconds is not None
    assert found.seconds is not None
    bill = small.bill()
    assert (found.cost.came_to, found.cost.inside) == (bill.total_amount, False)
    assert (found.worker_seconds.came_to, found.worker_seconds.inside) == (
        bill.total_ns / 1e9,
        True,
    )
    assert found.seconds.inside is True
    first, second = against_lines(found, "USD")
    assert first.startswith(
        "quoted     2.00 USD +- 5 % at 2026-11-20 09:30 UTC, by a pilot of 24 images; it came to "
    )
    assert first.endswith(": outside the interval")
    assert second.startswith("quoted     2 s of workers (- 100 %")
    assert second.endswith(": inside the interval")


def test_of_servers_the_time_that_is_paid_is_compared_and_not_a_workers_life(
    small: SmallJob,
) -> None:
    paid = Interval(middle=3.0, low=1.0, high=5.0)
    found = compared(small, offer(seconds=NARROW, paid=paid), servers="shared")
    assert found.worker_seconds is not None
    assert found.worker_seconds.quoted == paid
    assert found.seconds is not None
    assert found.seconds.quoted == NARROW


def test_without_a_spread_there_is_no_verdict(small: SmallJob) -> None:
    unknown = Interval(middle=2e9, low=None, high=None)
    found = compared(small, offer(cost=unknown, seconds=unknown), tried=0)
    first, second = against_lines(found, "USD")
    assert "(spread not known) at 2026-11-20 09:30 UTC, by 3 earlier runs; it came to" in first
    assert first.endswith(": not compared (the spread was not known)")
    assert second.endswith(": not compared (the spread was not known)")


def test_of_a_job_on_other_workers_the_time_is_not_compared(small: SmallJob) -> None:
    found = compared(small, offer(workers=8))
    assert found.seconds is not None
    assert found.seconds.inside is None
    assert found.seconds.why == "quoted on 8 workers, 1 worked"
    assert found.cost is not None
    assert found.cost.inside is True


def test_of_a_job_that_is_not_finished_nothing_is_compared(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": f"p{n}"} for n in range(8)], shards=[0])
    found = compared(small)
    assert found.cost is not None
    assert found.cost.inside is None
    assert against_lines(found, "USD")[0].endswith(": not compared (the job is not finished)")


@pytest.mark.parametrize(
    ("changes", "quote_changes", "why"),
    [
        ({"instance_type": "p5"}, {}, "it has no offer for local at 0.10 USD an hour of a worker"),
        ({"nano_per_hour": 7}, {}, "it has no offer for local at 0.10 USD an hour of a worker"),
        ({}, {"currency": "EUR"}, "it was quoted in EUR"),
    ],
)
def test_a_quote_of_other_machines_is_told_and_not_compared(
    small: SmallJob, changes: dict[str, Any], quote_changes: dict[str, Any], why: str
) -> None:
    found = compared(small, offer(**changes), **quote_changes)
    assert found.why == why
    assert against_lines(found, "USD") == [
        "quoted     2026-11-20 09:30 UTC, by a pilot of 24 images, but it cannot be compared: "
        f"{why}"
    ]
    assert found.to_mapping() == {
        "asked_at": "2026-11-20T09:30:00+00:00",
        "compared": False,
        "why": why,
    }


def test_workers_of_two_prices_and_of_none_are_not_compared(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}"} for n in range(8)]
    small = run_small_job(tmp_path / "a", rows, shards=[0])
    dearer = replace(small.config, pricing=replace(small.config.pricing, price_per_hour="3.00"))
    both = work_on(replace(small, config=dearer))
    assert compared(both).why == "its workers were on 2 kinds of machine or price"
    nowhere = run_small_job(tmp_path / "b", rows, **{"pricing.instance_type": "unknown"})
    assert compared(nowhere).why == "1 worker had no price"


def test_an_offer_for_this_machine_goes_before_one_for_any(small: SmallJob) -> None:
    anything = offer(instance_type=None, name="any machine")
    for offers in ((anything, offer()), (offer(), anything)):
        found = compared(small, *offers)
        assert found.offer == offer()
    assert compared(small, anything).offer == anything


def test_summary_and_manifest_tell_of_the_quote(small: SmallJob) -> None:
    write_quote(small.store, quote_for(small))
    found = ended(small)
    lines = summary_lines(small.job, found, result_of(small.job, found).status)
    assert sum(line.startswith("quoted ") for line in lines) == 2
    told = json.loads(small.store.get(layout.MANIFEST) or b"")["quoted"]
    assert told["asked_at"] == "2026-11-20T09:30:00+00:00"
    assert told["compared"] is True
    assert told["cost"] == {
        "quoted": "2.000000000",
        "low": "0.000000001",
        "high": "1000000.000000000",
        "came_to": f"{as_decimal(found.bill.total_amount):f}",
        "inside": True,
    }
    assert told["worker_seconds"]["quoted"] == 2.0
    assert told["seconds"]["inside"] is True


def test_nothing_is_told_where_nothing_was_quoted(small: SmallJob) -> None:
    found = ended(small)
    assert found.against is None
    assert json.loads(small.store.get(layout.MANIFEST) or b"")["quoted"] is None
    lines = summary_lines(small.job, found, 0)
    assert not any(line.startswith("quoted") for line in lines)
    assert "Quoted against actual" not in page_of(small)


def page_of(small: SmallJob) -> str:
    facts = ReportFacts(wall_s=3.0)
    page = build_report(small.store, small.job, small.plan, small.totals(), small.bill(), facts)
    return page.decode()


def test_the_report_has_the_quote_beside_what_it_came_to(small: SmallJob) -> None:
    write_quote(small.store, quote_for(small, offer(workers=2, cost=NARROW.times(10**9))))
    page = page_of(small)
    assert "Quoted on 2026-11-20 09:30 UTC, by a pilot of 24 images, for 2 workers on local" in page
    assert "3,600.00 USD" in page
    assert "<span>3,599.00 USD</span> <span>to 3,601.00 USD</span>" in page
    assert "outside the interval" in page
    assert "not compared (quoted on 2 workers, 1 worked)" in page
    small.store.delete(layout.QUOTE)
    write_quote(small.store, quote_for(small, currency="<b>"))
    assert "It cannot be compared: it was quoted in &lt;b&gt;." in page_of(small)


LOOKED_AT = r"""(() => {
  const title = [...document.querySelectorAll('h2')].find(
    node => node.textContent === 'Quoted against actual');
  const box = title.nextElementSibling;
  const state = node => getComputedStyle(node).color;
  return {
    page: [document.documentElement.scrollWidth, innerWidth],
    hidden: box.querySelector('.wide').scrollWidth - box.querySelector('.wide').clientWidth,
    lines: [...box.querySelectorAll('tr')].map(line =>
      [...line.children].map(cell => cell.innerText.trim().replaceAll('\n', ' | '))),
    colours: [...box.querySelectorAll('.state')].map(state),
    height: box.getBoundingClientRect().height,
  };
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_quote_in_a_browser(small: SmallJob, tmp_path: Path, width: int, dark: bool) -> None:
    write_quote(small.store, quote_for(small, offer(cost=NARROW.times(10**9))))
    path = tmp_path / "report.html"
    path.write_text(page_of(small), encoding="utf-8")
    seen = look(path, LOOKED_AT, width=width, dark=dark)
    assert seen.complaints == ()
    found = seen.value
    assert found["page"][0] <= found["page"][1], "nothing is to be pushed sideways"
    assert found["hidden"] <= 0, "all columns are in view"
    assert found["lines"][0] == ["", "Quoted", "Came to"]
    assert [line[0] for line in found["lines"][1:]] == [
        "Cost | outside the interval",
        "Time of all workers | inside the interval",
        "Time | inside the interval",
    ]
    quoted = found["lines"][1][1].replace(" | to", " to")
    assert quoted == "3,600.00 USD | 3,599.00 USD to 3,601.00 USD"
    outside, inside, _ = found["colours"]
    assert outside != inside
    assert found["height"] > 100
