"""What images cost with their shares: exact for any amounts, and to the unit on real jobs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import layout
from cluster.coordinator import Snapshot
from cluster.exact_money import money_of, nano_of
from cluster.image_columns import SHARED, SHARES
from cluster.image_shares import ImageShares, Split
from cluster.money import storage_line
from cluster.supervisor import RunEnd
from cluster.tables import MONEY, read_parquet, to_parquet
from conf.schema import EnergyConfig
from jobs import image_costs
from jobs.cost import cost
from jobs.finish import finish
from jobs.verify import verify
from tests.small_jobs import SmallJob, run_small_job, work_on

ROWS = [{"prompt": f"picture {n}", "steps": 1 + n % 5, "num_images": 1 + n % 3} for n in range(12)]
TINY = {"sampling.width": 16, "sampling.height": 16}
KEPT = {"per_gb_month": 10, "per_1000_writes": 4, "per_1000_reads": "0.5", "per_gb_egress": 100}
FINISHED = RunEnd(finished=True, reason="", snapshot=cast(Snapshot, None), restarts=0)

amounts = st.integers(0, 2**62)


@settings(max_examples=300, deadline=None)
@given(
    pools=st.dictionaries(st.sampled_from(SHARED), st.none() | amounts, min_size=1),
    weights=st.lists(st.integers(0, 2**50), min_size=1, max_size=40).filter(any),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_shares_sum_exactly_to_what_there_is_to_share_however_the_images_come(
    pools: dict[str, int | None], weights: list[int], cuts: list[int]
) -> None:
    split, whole = Split(pools, sum(weights)), sum(weights)
    found: dict[str, list[int] | None] = {kind: [] for kind in pools}
    places = sorted({0, len(weights), *(cut for cut in cuts if cut <= len(weights))})
    for begin, end in pairwise(places):
        for kind, parts in split.next(weights[begin:end]).items():
            before = found[kind]
            found[kind] = None if parts is None or before is None else before + parts
    for kind, pool in pools.items():
        parts = found[kind]
        if pool is None:
            assert parts is None, "what is not known is never 0"
            continue
        assert parts is not None
        assert sum(parts) == pool
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part * whole - pool * weight) < whole, "off by less than a unit"


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(-(2**62), 2**62), max_size=9), st.integers(0, 9))
def test_money_columns_become_integers_and_come_back(found: list[int | None], begin: int) -> None:
    cells = [None if one is None else Decimal(one).scaleb(-9) for one in found]
    column = pa.chunked_array([pa.array(cells[:begin], MONEY), pa.array(cells[begin:], MONEY)])
    assert nano_of(column).tolist() == [one or 0 for one in found]
    assert nano_of(column.slice(1)).tolist() == [one or 0 for one in found[1:]]
    known = [one or 0 for one in found]
    assert money_of(known).to_pylist() == [Decimal(one).scaleb(-9) for one in known]


def ended(small: SmallJob) -> SmallJob:
    finish(small.store, small.job, small.plan, generation=0, end=FINISHED, wall_s=1.0)
    return small


def costs_of(small: SmallJob) -> pa.Table:
    keys = [entry.key for entry in small.store.listing(layout.IMAGE_COSTS)]
    return pa.concat_tables([read_parquet(small.store.get(key) or b"") for key in keys])


def summed(table: pa.Table, name: str) -> Decimal:
    return sum(table[name].to_pylist(), Decimal(0))


def storing(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """An output on an object store, whose requests and bytes are paid for."""
    book = tmp_path / "prices.yaml"
    plain = {"version": "m", "currency": "USD", "instances": [{"price_per_hour": "7"}]}
    book.write_text(yaml.safe_dump({**plain, "storage": [{"url": "memory:", **KEPT}]}))
    return {
        "output.path": f"memory://{tmp_path.name}-{uuid4().hex}",
        "pricing.book": str(book),
        "pricing.storage_months": 12,
        **more,
    }


def test_over_all_images_of_a_job_the_columns_are_what_the_cost_command_says(
    tmp_path: Path,
) -> None:
    small = ended(run_small_job(tmp_path, ROWS, **TINY, **{"pricing.price_per_hour": "7"}))
    (told,) = cost([small.store.url]).totals.to_pylist()
    table = costs_of(small)
    listed = read_parquet(small.store.get("metadata.parquet") or b"")
    assert listed.num_rows == table.num_rows == told["images"] == 24
    for found in (table, listed):
        assert summed(found, "cost_total") == told["cost"] > 0
        assert summed(found, "cost") == told["used"] > 0
        for kind in SHARED:
            assert summed(found, f"cost_{kind}") == (told[kind] or 0), kind
        assert summed(found, "cost_overhead") + summed(found, "cost_idle") > 0
    assert listed.select(["image_id", *SHARES.names]).equals(
        table.select(["image_id", *SHARES.names]).cast(
            listed.select(["image_id", *SHARES.names]).schema
        )
    )
    for row in table.to_pylist():
        assert row["cost_total"] == row["cost"] + sum(row[f"cost_{kind}"] for kind in SHARED)
    assert verify(small.store).problems == ()


@pytest.mark.parametrize("output_format", ["webdataset", "parquet"])
def test_every_format_has_them_and_the_store_is_shared_too(
    tmp_path: Path, output_format: str
) -> None:
    changes = storing(tmp_path, **{"output.format": output_format})
    small = ended(run_small_job(tmp_path, ROWS, **TINY, **changes))
    bill = small.bill()
    table = costs_of(small)
    for kind in ("requests", "egress", "storage"):
        assert summed(table, f"cost_{kind}") == Decimal(bill.amount.get(kind, 0)).scaleb(-9)
    assert summed(table, "cost_requests") > 0
    assert summed(table, "cost_storage") > 0
    assert summed(table, "cost_total") == Decimal(bill.total_amount).scaleb(-9)
    assert verify(small.store).problems == ()


def test_they_are_cut_into_parts_that_sum_up_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY, **{"pricing.price_per_hour": "7"})
    ended(small)
    whole = costs_of(small)
    monkeypatch.setattr(image_costs, "PART_ROWS", 5)
    monkeypatch.setattr("cluster.counted_tables._TOGETHER", 1)
    ended(small)
    assert len(small.store.listing(layout.IMAGE_COSTS)) > 1
    assert costs_of(small).equals(whole)
    monkeypatch.undo()
    ended(small)
    assert costs_of(small).equals(whole), "parts that are left over are empty"
    assert verify(small.store).problems == ()


def test_of_a_job_without_prices_they_are_null_and_never_zero(tmp_path: Path) -> None:
    small = ended(run_small_job(tmp_path, ROWS, **TINY, **{"pricing.instance_type": "p5"}))
    table = costs_of(small)
    for name in ("cost", *SHARES.names):
        assert table[name].null_count == table.num_rows == 24, name
    assert verify(small.store).problems == ()


def test_where_one_worker_has_no_price_no_share_is_known_and_direct_costs_are(
    tmp_path: Path,
) -> None:
    first = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **{"pricing.instance_type": "p5"})
    pricing = replace(first.config.pricing, price_per_hour="3")
    small = work_on(replace(first, config=replace(first.config, pricing=pricing)), shards=[1, 2])
    table = costs_of(ended(small))
    assert 0 < table["cost"].null_count < table.num_rows
    for name in SHARES.names:
        assert table[name].null_count == table.num_rows, name
    assert verify(small.store).problems == ()


def test_requests_without_a_price_leave_only_their_share_and_the_total_open(
    tmp_path: Path,
) -> None:
    where = {"output.path": f"memory://{tmp_path.name}-{uuid4().hex}"}
    small = ended(run_small_job(tmp_path, ROWS, **TINY, **where))
    table = costs_of(small)
    unknown = [name for name in SHARES.names if table[name].null_count]
    assert unknown == ["cost_requests", "cost_total", "energy_total_wh", "gco2e_total"]
    assert verify(small.store).problems == ()


NOTHING_STATED = EnergyConfig(watts=None, grid_g_per_kwh=None, embodied_g_per_hour=None)


def metadata_of_three(seconds: list[float], methods: list[str | None]) -> pa.Table:
    """The columns that shares are made from, of three images."""
    return pa.table(
        {
            "cost": pa.array([Decimal(0)] * 3, MONEY),
            "gpu_seconds": seconds,
            "energy_wh": [0.1, 0.1, None],
            "energy_method": pa.array(methods, pa.string()),
            "gco2e": [0.1, 0.1, None],
        }
    )


def test_where_no_image_costs_a_unit_shares_go_by_time_and_without_any_by_images(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    bill, stamp = small.bill(), small.totals().workers["r0001-w0000"].stamp
    assert stamp is not None
    table = metadata_of_three([1.0, 3.0, 0.0], [None] * 3)
    for used_ns, expected in ((4 * 10**9, [100, 300, 0]), (0, [133, 133, 134])):
        free = replace(bill, amount={"used": 0, "idle": 400}, ns={"used": used_ns}, total_amount=0)
        idle = replace(storage_line(0, Decimal(0), stamp), kind="idle", amount_nano=400)
        columns = ImageShares.of([idle], free, 3, NOTHING_STATED).columns(table)
        parts = nano_of(pa.chunked_array([columns[SHARES.names.index("cost_idle")]])).tolist()
        assert parts == expected


def test_stated_energy_and_carbon_come_with_their_share_of_the_other_time(tmp_path: Path) -> None:
    stated = {"watts": 300, "grid_g_per_kwh": 400, "embodied_g_per_hour": 20}
    energy = {f"energy.{name}": value for name, value in stated.items()}
    small = ended(run_small_job(tmp_path, ROWS, **TINY, **energy))
    table, hours = costs_of(small), small.bill().total_ns / 3.6e12
    assert sum(table["energy_total_wh"].to_pylist()) == pytest.approx(300 * hours)
    assert sum(table["gco2e_total"].to_pylist()) == pytest.approx((0.3 * 400 + 20) * hours)
    for row in table.to_pylist():
        assert row["energy_total_wh"] > row["energy_wh"] > 0


def test_where_energy_was_measured_the_rest_is_not_known(tmp_path: Path) -> None:
    bill = run_small_job(tmp_path, ROWS, **TINY).bill()
    stated = EnergyConfig(watts=300, grid_g_per_kwh=400, embodied_g_per_hour=None)
    table = metadata_of_three([1.0, 1.0, 1.0], ["stated", "nvml", None])
    found = ImageShares.of([], bill, 3, stated).columns(table)
    for column in found[-2:]:
        assert [value is None for value in column.to_pylist()] == [False, True, True]


def test_what_does_not_sum_up_to_the_bill_is_named_by_verify(tmp_path: Path) -> None:
    small = ended(run_small_job(tmp_path, ROWS, **TINY, **{"pricing.price_per_hour": "7"}))
    key = layout.image_costs(0)
    table = read_parquet(small.store.get(key) or b"")
    how = f"; 'imagemill report {small.store.url}' writes them anew"
    small.store.put(key, to_parquet(table.slice(1)))
    assert verify(small.store).problems == (f"costs/ holds 23 images; expected 24{how}",)
    place = table.column_names.index("cost_idle")
    none = table.set_column(place, table.schema.field(place), pa.nulls(24, MONEY))
    small.store.put(key, to_parquet(none))
    (problem,) = verify(small.store).problems
    assert problem.startswith("cost_idle in costs/ comes to 0.000000000 and is null for 24 images;")
    assert problem.endswith(how)
    small.store.put(key, b"no table")
    (problem,) = verify(small.store).problems
    assert problem.startswith(f"{key} cannot be read (")
    ended(small)
    assert verify(small.store).problems == ()


def test_a_column_of_the_users_that_has_such_a_name_is_carried_beside_it(tmp_path: Path) -> None:
    rows = [{**row, "cost_total": "mine"} for row in ROWS]
    small = ended(run_small_job(tmp_path, rows, **TINY))
    listed = pq.read_table(Path(small.store.url) / "metadata.parquet")
    assert set(listed["input_cost_total"].to_pylist()) == {"mine"}
    assert pa.types.is_decimal(listed.schema.field("cost_total").type)
