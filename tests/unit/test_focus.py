"""The FOCUS file: sums to the ledger, each row holds, and the validator finds nothing else."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.money import as_decimal
from conf.errors import ConfigError, CorruptOutput
from jobs.cost import cost, export_focus, find_outputs
from jobs.cost.focus import FocusExport, focus_lines
from tests.focus_checks import far_from_list, ratio_sums, sku_violations, violations
from tests.made_ledgers import HOUR_NS, NOON, image_line, made_output, other_line, worker_line
from tests.small_jobs import run_small_job

PYTHON = os.environ.get("FOCUS_PYTHON") or "out/focus/bin/python"
"""A Python >= 3.12 with focus-validator in it; docs/cost.md says how to get it."""

CONTRADICTING = {"InvoiceId-C-004-C", "InvoiceId-C-005-C"}
"""The one says that the column is null, the other that it is not."""

LINES = [
    *(image_line(n, tags=[("customer", f"c{n % 2}")], gpu_ns=123_456_789 + n) for n in range(5)),
    image_line(9, start=NOON + timedelta(days=31), purchase_option="spot", price_digest="d2"),
    image_line(10, currency="EUR", provider="gcp", region=None, price_digest="d3", project=""),
]
OTHERS = [
    worker_line("wasted", tags=[]),
    worker_line(
        period_end=NOON + timedelta(days=3), gpu_ns=60 * HOUR_NS, amount_nano=216_000_000_001
    ),
    worker_line("overhead", gpu_ns=0, amount_nano=0),
    worker_line(
        line_id="w0:idle:1", corrects="w0:idle", gpu_ns=-HOUR_NS, amount_nano=-3_600_000_000
    ),
    worker_line(worker="w1", node="node-b", gpu_ns=HOUR_NS, price_nano_per_hour=7, amount_nano=7),
    other_line(),
    other_line("requests", unit="1000 writes", quantity=Decimal("0.5"), amount_nano=10_000_000),
    other_line("requests", unit="1000 reads", quantity=3, price_nano_per_unit=4, amount_nano=12),
]


def charged(line: dict[str, Any]) -> dict[str, Any]:
    """The line with the amount that its time costs, rounded down."""
    return {**line, "amount_nano": line["price_nano_per_hour"] * line["gpu_ns"] // HOUR_NS}


def export(tmp_path: Path, name: str, detail: str = "charge") -> tuple[FocusExport, Path]:
    made_output(tmp_path / "job", [charged(line) for line in LINES], OTHERS)
    path = tmp_path / name
    return export_focus(find_outputs([str(tmp_path / "job")]), path, detail), path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def rows_of_csv(path: Path) -> list[dict[str, Any]]:
    """The rows with nulls and numbers; the types are those of the Parquet file beside it."""
    types = {field.name: str(field.type) for field in pq.read_schema(path.with_suffix(".parquet"))}

    def typed(name: str, text: str) -> Any:
        if text == "":
            return None
        if types[name].startswith("decimal"):
            assert "E" not in text
            return Decimal(text)
        return int(text) if types[name] == "int64" else text

    with path.open(newline="") as file:
        return [{n: typed(n, text) for n, text in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("detail", ["charge", "image"])
def test_every_row_holds_and_the_sums_are_the_ledgers(tmp_path: Path, detail: str) -> None:
    done, path = export(tmp_path, "focus.parquet", detail)
    rows = rows_of(path)
    assert violations(rows) == []
    assert sku_violations(rows) == []
    assert far_from_list(rows) == []
    told = {row["currency"]: row["cost"] for row in _totals(tmp_path)}
    billed: Counter[str] = Counter()
    for row in rows:
        billed[row["BillingCurrency"]] += row["BilledCost"]
        assert row["BilledCost"] == as_decimal(row["x_AmountNano"])
    assert billed == told
    assert {c: as_decimal(a) for c, a in done.amounts} == told
    assert done.charges == len(rows)
    assert sum(row["x_Images"] for row in rows) == len(LINES)
    for origin, ratio in ratio_sums(rows).items():
        assert ratio == pytest.approx(1, abs=1e-12), origin


def _totals(folder: Path) -> list[dict[str, Any]]:
    return list(cost([str(folder / "job")]).totals.to_pylist())


def test_a_row_is_a_charge_of_a_day_and_its_tags(tmp_path: Path) -> None:
    _, path = export(tmp_path, "focus.parquet")
    used = [row for row in rows_of(path) if row["x_Kind"] == "used"]
    found = {
        (row["ChargePeriodStart"].date().isoformat(), row["Tags"], row["PricingCategory"]): row[
            "x_Images"
        ]
        for row in used
    }
    assert found == {
        ("2026-03-01", '{"customer":"c0"}', "Standard"): 3,
        ("2026-03-01", '{"customer":"c1"}', "Standard"): 2,
        ("2026-03-01", '{"customer":"acme"}', "Standard"): 1,
        ("2026-04-01", '{"customer":"acme"}', "Dynamic"): 1,
    }
    idle = [row for row in rows_of(path) if row["x_Kind"] == "idle"]
    assert [row["ChargePeriodStart"].day for row in idle if row["ResourceId"] == "node-a"] == [
        *(1, 1, 2, 3, 4)
    ]
    (correction,) = [row for row in rows_of(path) if row["ChargeClass"]]
    assert correction["BilledCost"] == Decimal("-3.6")
    (storage,) = [row for row in rows_of(path) if row["x_Kind"] == "storage"]
    assert (storage["PricingQuantity"], storage["PricingUnit"]) == (2, "GB-Months")
    assert storage["AllocatedMethodId"] is None


def test_with_detail_image_each_image_is_a_row(tmp_path: Path) -> None:
    _, path = export(tmp_path, "focus.parquet", "image")
    images = Counter(row["x_ImageId"] for row in rows_of(path) if row["x_ImageId"])
    assert images == {f"{n}-0": 1 for n in (*range(5), 9, 10)}
    one = next(row for row in rows_of(path) if row["x_ImageId"] == "3-0")
    assert one["AllocatedResourceId"].endswith("/job/output#3-0")
    assert one["AllocatedResourceName"] == "3-0"


def test_csv_says_the_same_as_parquet(tmp_path: Path) -> None:
    _, parquet = export(tmp_path, "focus.parquet")
    path = tmp_path / "focus.csv"
    export_focus(find_outputs([str(tmp_path / "job")]), path)
    rows = rows_of_csv(path)
    assert violations(rows) == []
    assert [row["BilledCost"] for row in rows] == [row["BilledCost"] for row in rows_of(parquet)]


def test_lines_without_a_price_are_left_out_and_told(tmp_path: Path) -> None:
    lines = [image_line(0), image_line(1, amount_nano=None, gpu_ns=HOUR_NS)]
    made_output(tmp_path / "job", lines)
    done = export_focus(find_outputs([str(tmp_path)]), tmp_path / "f.parquet")
    assert (done.charges, done.unpriced_lines, done.unpriced_gpu_hours) == (1, 1, 1.0)
    assert "1 line with 1 GPU hours have no price and are not in the file" in focus_lines(done)[1]


def test_writing_twice_is_the_same_file_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    _, path = export(tmp_path, "focus.csv")
    before = path.read_bytes()
    outputs = find_outputs([str(tmp_path / "job")])
    export_focus(outputs, path)
    assert path.read_bytes() == before
    store = outputs[0].store
    (entry,) = [e for e in store.listing("ledger/") if "workers" not in e.key]
    store.delete(entry.key)
    with pytest.raises(CorruptOutput):
        export_focus(outputs, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["focus.csv", "job"]


def test_each_charge_says_whether_its_job_is_finished(tmp_path: Path) -> None:
    small = run_small_job(
        tmp_path / "at 'work", [{"prompt": f"p{i}"} for i in range(8)], shards=[0]
    )
    over = made_output(tmp_path / "it's over", [image_line(0)])
    for detail in ("charge", "image"):
        export_focus(find_outputs([str(tmp_path)]), tmp_path / "f.parquet", detail)
        states = {(row["x_Output"], row["x_JobState"]) for row in rows_of(tmp_path / "f.parquet")}
        assert states == {(small.store.url, "unfinished"), (over.url, "finished")}


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"focus\.xlsx ends in '\.xlsx'; expected \.parquet or"):
        export_focus([], tmp_path / "focus.xlsx")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("ChargeCategory", "Costs", "ChargeCategory is 'Costs'"),
        ("PricingUnit", "gpu hours", "PricingUnit is 'gpu hours'"),
        ("ListCost", Decimal("1.5"), "price times quantity"),
        ("ContractedUnitPrice", Decimal(9), "ContractedCost is"),
        ("BilledCost", None, "BilledCost is null"),
        ("Tags", '{"a":{"b":"c"}}', "Tags is not flat"),
        ("InvoiceIssuerName", "other", "billed by another"),
        ("ChargePeriodEnd", "2026-03-02", "no time in UTC"),
        ("AllocatedTags", None, "some columns of a split charge are null"),
    ],
)
def test_the_row_checks_see_what_the_validator_does_not(
    tmp_path: Path, column: str, value: Any, said: str
) -> None:
    _, path = export(tmp_path, "focus.parquet")
    row = next(row for row in rows_of(path) if row["x_Kind"] == "used")
    assert violations([row]) == []
    assert any(said in found for found in violations([{**row, column: value}]))


@pytest.mark.skipif(
    not shutil.which(PYTHON), reason="no focus-validator: set FOCUS_PYTHON (docs/cost.md)"
)
@pytest.mark.parametrize("name", ["focus.parquet", "focus.csv"])
@pytest.mark.parametrize("detail", ["charge", "image"])
def test_focus_validator_finds_only_its_own_contradiction(
    tmp_path: Path, name: str, detail: str
) -> None:
    _, path = export(tmp_path, name, detail)
    assert failed_rules(path) - CONTRADICTING == set()


@pytest.mark.skipif(
    not shutil.which(PYTHON), reason="no focus-validator: set FOCUS_PYTHON (docs/cost.md)"
)
def test_focus_validator_really_looks(tmp_path: Path) -> None:
    _, path = export(tmp_path, "focus.parquet")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["BilledCost"]), path)
    assert "BilledCost" in " ".join(failed_rules(path))


def failed_rules(path: Path) -> set[str]:
    """The rules of FOCUS 1.2 that focus-validator sees broken; its exit status tells nothing."""
    site = _in_validator(["-c", "import focus_validator as f; print(f.__path__[0])"], Path.cwd())
    command = ["-m", "focus_validator.main", "--validate-version", "1.2", "--block-download"]
    said = _in_validator([*command, "--data-file", str(path)], Path(site.strip()).parent)
    results = [line.split()[1].rstrip(":") for line in said.splitlines() if ": FAIL " in line]
    assert ": PASS " in said, said[-2000:]
    return set(results)


def _in_validator(words: Sequence[str], folder: Path) -> str:
    python = str(Path(shutil.which(PYTHON) or PYTHON).absolute())
    done = subprocess.run([python, *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_real_jobs_export_sums_to_its_bill(tmp_path: Path) -> None:
    small = run_small_job(
        tmp_path,
        [{"prompt": f"p{i}", "tags": f"customer=c{i % 3}"} for i in range(12)],
        **{"pricing.price_per_hour": "987.654", "job.project": "cats"},
    )
    done = export_focus(find_outputs([small.store.url]), tmp_path / "f.parquet", "image")
    assert done.amounts == (("USD", small.bill().total_amount),)
    rows = rows_of(tmp_path / "f.parquet")
    assert violations(rows) == []
    tags = Counter(json.loads(row["Tags"]).get("customer") for row in rows if row["x_Images"])
    assert tags == {"c0": 4, "c1": 4, "c2": 4}
