"""Amounts beyond what 64 bits hold of 1e-9 units, as sums in rupiah or dong may be."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from shard_records import PRICE, STAMP

from cluster import layout
from cluster.exact_money import money_of
from cluster.ledger import Attribution, ledger_table
from cluster.money import close_worker
from cluster.tables import read_parquet, to_parquet
from conf.errors import ConfigError
from jobs.cost import cost, export_focus, find_outputs
from jobs.report.costs import CostSurvey
from jobs.verify import verify
from tests.made_ledgers import NOON, image_line, ledger_of, made_output, worker_line
from tests.small_jobs import run_small_job
from tests.unit.test_image_shares import ended

HUGE = 9 * 10**18
"""Nine thousand million currency units: two of them are more than 64 bits hold."""


def test_sums_that_64_bits_do_not_hold_are_exact_in_answers_and_in_focus(tmp_path: Path) -> None:
    lines = [image_line(n, amount_nano=HUGE + n) for n in range(4)]
    url = made_output(tmp_path, lines, [worker_line(amount_nano=HUGE)]).url
    exact = 5 * HUGE + 6
    for by in ([], ["day"], ["model"]):
        for spread in (False, True):
            told = cost([url], by, spread_others=spread and bool(by))
            assert told.totals["cost"].to_pylist() == [Decimal(exact).scaleb(-9)]
            assert sum(filter(None, told.rows["cost"].to_pylist())) == Decimal(exact).scaleb(-9)
    done = export_focus(find_outputs([url]), tmp_path / "focus.csv")
    assert done.amounts == (("USD", exact),)
    with (tmp_path / "focus.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["x_AmountNano"]) for row in rows) == exact
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(exact).scaleb(-9)


def test_the_days_of_a_report_hold_them_too() -> None:
    found = CostSurvey()
    found.add_images(ledger_of([image_line(n, amount_nano=HUGE) for n in range(2)]))
    day = timedelta(hours=1)
    found.add_workers(
        ledger_of(
            [
                worker_line(line_id=f"w{n}:idle", amount_nano=HUGE, period_end=NOON + day)
                for n in range(2)
            ]
        )
    )
    assert found.days == {(NOON.date(), "used"): 2 * HUGE, (NOON.date(), "idle"): 2 * HUGE}


def test_shares_of_all_images_are_summed_without_a_limit(tmp_path: Path) -> None:
    small = ended(run_small_job(tmp_path, [{"prompt": "a"}, {"prompt": "b"}]))
    key = layout.image_costs(0)
    table = read_parquet(small.store.get(key) or b"")
    place = table.column_names.index("cost_total")
    small.store.put(key, to_parquet(table.set_column(place, "cost_total", money_of([HUGE, HUGE]))))
    (problem,) = verify(small.store).problems
    assert problem.startswith("cost_total in costs/ comes to 18000000000.000000000 ")


def test_one_line_that_a_ledger_cannot_hold_is_told_in_words() -> None:
    dear = replace(PRICE, nano_per_hour=10**16)
    stamp = replace(STAMP, price=dear, lifetime_ns=1000 * 3600 * 10**9, busy_ns=0, overhead_ns=0)
    lines = close_worker(stamp, used_ns=0, used_amount=0)
    with pytest.raises(ConfigError) as caught:
        ledger_table(lines, Attribution(job="j", project="", tags={}))
    assert str(caught.value) == (
        f"line {stamp.worker}:idle of the ledger comes to 10,000,000,000.000000000 USD, and can "
        "hold no more than 9,223,372,036.854775807 USD; check the prices, or begin a job with a "
        "price book in a larger currency; what was made stays"
    )
