"""What outputs cost, asked by dimensions: over real small jobs and over ledgers made up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster import layout
from cluster.counted_ledger import image_lines_of
from cluster.money import as_decimal
from cluster.store import Store
from cluster.tables import to_parquet
from conf.errors import ConfigError, CorruptOutput, OutputMissing
from jobs.cost import CostAnswer, cost
from jobs.cost import lines as cost_lines
from jobs.cost.lines import tag_values
from jobs.cost.show import notes
from tests.made_ledgers import (
    HOUR_NS,
    NOON,
    image_line,
    ledger_of,
    made_output,
    other_line,
    worker_line,
)
from tests.small_jobs import prepare_small_job, run_small_job, work_on
from tests.unit.shard_records import opened


def by(answer: CostAnswer, *names: str) -> dict[Any, Any]:
    """Dimension values -> the named figures, single values bare."""

    def bare(values: list[Any]) -> Any:
        return values[0] if len(values) == 1 else tuple(values)

    return {
        bare([row[n] for n in answer.by]): bare([row[n] for n in names])
        for row in answer.rows.to_pylist()
    }


def total(answer: CostAnswer) -> dict[str, Any]:
    (row,) = answer.totals.to_pylist()
    return dict(row)


def test_the_total_of_a_real_job_is_its_bill_to_the_last_unit(tmp_path: Path) -> None:
    small = run_small_job(
        tmp_path, [{"prompt": f"p{i}"} for i in range(20)], **{"pricing.price_per_hour": "987.654"}
    )
    bill = small.bill()
    told = total(cost([str(small.store.url)]))
    assert told["cost"] == as_decimal(bill.total_amount) > 0
    for kind, amount in bill.amount.items():
        assert told[kind] == as_decimal(amount)
    assert told["images"] == 20
    assert told["gpu_hours"] == pytest.approx(bill.total_ns / 3.6e12)


def test_lines_that_no_commit_counts_are_not_in_the_sum(tmp_path: Path) -> None:
    """A zombie's ledger object lies in the folder, its commit came after the seal."""
    store = made_output(tmp_path, [image_line()])
    zombie = layout.attempt_object("ledger", 0, 1, 9, "parquet")
    store.put_if_absent(zombie, to_parquet(ledger_of([image_line(7)])))
    assert total(cost([store.url]))["images"] == 1


def test_an_epoch_that_another_one_fenced_does_not_count(tmp_path: Path) -> None:
    small = work_on(
        prepare_small_job(tmp_path, [{"prompt": f"p{i}"} for i in range(8)]), shards=[0]
    )
    before = total(cost([small.store.url]))["images"]
    late = opened(small.store, 1, worker="zombie")
    opened(small.store, 1, worker="heir")
    key = layout.attempt_object("ledger", 1, late.epoch, 0, "parquet")
    small.store.put_if_absent(key, to_parquet(ledger_of([image_line(7)])))
    assert total(cost([small.store.url]))["images"] == before == 4


def test_each_dimension_groups_by_what_its_name_says(tmp_path: Path) -> None:
    lines = [
        image_line(0, steps=20, tags=[("customer", "acme"), ("team", "x")]),
        image_line(1, steps=30, width=512, sampler="ddim", amount_nano=5, tags=[]),
        image_line(2, steps=30, tags=[("customer", "bolt")], project="lab", model="sd3"),
    ]
    where = [made_output(tmp_path, lines, [worker_line(), other_line()]).url]
    assert by(cost(where, ["steps"]), "images") == {20: 1, 30: 2, None: 0}
    assert by(cost(where, ["size"]), "images") == {"1024x1024": 2, "512x1024": 1, None: 0}
    tags = by(cost(where, ["tag:customer"]), "images")
    assert tags == {"acme": 1, "bolt": 1, None: 1}
    nobody = cost(where, ["tag:nobody-has-it"]).rows
    assert (nobody["tag:nobody-has-it"].to_pylist(), nobody["images"].to_pylist()) == (
        [None, None],
        [0, 3],
    )
    assert by(cost(where, ["project,model"]), "images") == {
        ("shop", "sdxl"): 2,
        ("shop", None): 0,
        ("lab", "sd3"): 1,
    }
    kinds = by(cost(where, ["kind"]), "cost")
    assert kinds == {
        "used": Decimal("0.002000005"),
        "idle": Decimal("0.001"),
        "storage": Decimal("0.04"),
    }
    machines = by(cost(where, ["instance_type", "purchase_option"]), "lines")
    assert machines == {("p5.4xlarge", "on-demand"): 4, (None, None): 1}
    assert by(cost(where, ["month"]), "images") == {"2026-03": 3}


def test_images_without_a_tag_stand_apart_from_what_no_image_has(tmp_path: Path) -> None:
    lines = [image_line(0), image_line(1, tags=[]), image_line(2, tags=[("team", "x")])]
    others = [
        worker_line(tags=[], amount_nano=9_000_000),
        other_line(tags=[], amount_nano=39_000_000),
    ]
    where = [made_output(tmp_path, lines, others).url]
    told = cost(where, ["tag:customer"]).rows.to_pylist()
    names = ("tag:customer", "images", "cost", "cost_per_image")
    assert [tuple(row[name] for name in names) for row in told] == [
        (None, 0, Decimal("0.048"), None),
        (None, 2, Decimal("0.002"), Decimal("0.001")),
        ("acme", 1, Decimal("0.001"), Decimal("0.001")),
    ]
    spread = cost(where, ["tag:customer"], spread_others=True).rows.to_pylist()
    assert [(row["tag:customer"], row["images"], row["cost"]) for row in spread] == [
        (None, 2, Decimal("0.034")),
        ("acme", 1, Decimal("0.017")),
    ]


def test_the_trend_of_images_without_a_tag_is_theirs_alone(tmp_path: Path) -> None:
    later = NOON + timedelta(days=1)
    lines = [image_line(0, tags=[]), image_line(1, tags=[], start=later, amount_nano=1_500_000)]
    others = [worker_line(tags=[], amount_nano=8_000_000)]
    told = cost([made_output(tmp_path, lines, others).url], ["day", "tag:customer"]).rows
    assert told["images"].to_pylist() == [0, 1, 1]
    assert told["cost_change"].to_pylist() == [None, None, pytest.approx(0.5)]


def test_cost_per_image_and_waste_share(tmp_path: Path) -> None:
    others = [worker_line("wasted"), worker_line("idle", amount_nano=2_000_000), other_line()]
    store = made_output(tmp_path, [image_line(n) for n in range(3)], others)
    told = total(cost([store.url]))
    assert told["cost"] == Decimal("0.046")
    assert told["cost_per_image"] == Decimal("0.015333333")
    assert told["cost_per_1000_images"] == Decimal("15.333333333")
    assert told["waste_share"] == pytest.approx(1 / 6), "of GPU time alone, storage left out"


def test_the_trend_compares_with_the_day_before_of_the_same_model(tmp_path: Path) -> None:
    later = NOON + timedelta(days=1)
    lines = [
        image_line(0),
        image_line(1, start=later, amount_nano=1_500_000),
        image_line(2, start=later, model="sd3"),
    ]
    told = cost([made_output(tmp_path, lines).url], ["day", "model"])
    assert by(told, "cost_change") == {
        (date(2026, 3, 1), "sdxl"): None,
        (date(2026, 3, 2), "sdxl"): pytest.approx(0.5),
        (date(2026, 3, 2), "sd3"): None,
    }
    assert told.rows["day"].to_pylist() == sorted(told.rows["day"].to_pylist())


def test_a_workers_idle_time_is_charged_to_the_days_that_it_lasted(tmp_path: Path) -> None:
    idle = worker_line(
        period_start=NOON, period_end=NOON + timedelta(days=2), amount_nano=101, gpu_ns=1001
    )
    told = cost([made_output(tmp_path, [image_line()], [idle]).url], ["day", "kind"])
    found = {day: amount for (day, kind), amount in by(told, "cost").items() if kind == "idle"}
    assert found == {
        date(2026, 3, 1): as_decimal(25),
        date(2026, 3, 2): as_decimal(50),
        date(2026, 3, 3): as_decimal(26),
    }


def test_lines_without_a_price_are_told_and_make_no_average(tmp_path: Path) -> None:
    lines = [
        image_line(0),
        image_line(1, amount_nano=None, price_nano_per_hour=None, gpu_ns=3600 * 10**9),
        image_line(2, amount_nano=None, price_nano_per_hour=None, model="sd3"),
    ]
    store = made_output(tmp_path, lines)
    told = cost([store.url], ["model"])
    names = ("cost", "images", "cost_per_image", "unpriced_lines")
    assert by(told, *names) == {
        "sdxl": (Decimal("0.001"), 2, None, 1),
        "sd3": (None, 1, None, 1),
    }
    assert told.unpriced_lines == 2
    assert total(told)["unpriced_gpu_hours"] == pytest.approx(1 + 1 / 3600)


def test_a_line_that_has_a_price_by_now_is_unpriced_no_more(tmp_path: Path) -> None:
    unpriced = other_line(line_id="storage", amount_nano=None, price_nano_per_unit=None)
    corrects = {"line_id": "storage:1", "corrects": "storage"}
    others = [
        unpriced,
        {**unpriced, **corrects, "quantity": -2},
        other_line(corrects="storage", line_id="storage:2"),
    ]
    told = cost([made_output(tmp_path, [image_line()], others).url])
    assert told.unpriced_lines == 0
    assert total(told)["storage"] == Decimal("0.04")
    assert total(told)["cost_per_image"] == Decimal("0.041")


def test_an_unpriced_line_that_was_corrected_twice_is_one_line(tmp_path: Path) -> None:
    idle = worker_line(amount_nano=None, price_nano_per_hour=None, gpu_ns=HOUR_NS)
    others = [
        idle,
        idle | {"line_id": "w0:idle:1", "corrects": "w0:idle"},
        idle | {"line_id": "w0:idle:2", "corrects": "w0:idle", "gpu_ns": -HOUR_NS // 2},
    ]
    told = cost([made_output(tmp_path, [image_line()], others).url])
    assert (told.unpriced_lines, total(told)["lines"]) == (1, 2)
    assert total(told)["unpriced_gpu_hours"] == pytest.approx(1.5)


def test_several_currencies_are_never_added_up(tmp_path: Path) -> None:
    store = made_output(tmp_path, [image_line(0), image_line(1, currency="EUR", amount_nano=7)])
    told = cost([store.url])
    found = {row["currency"]: row["cost"] for row in told.totals.to_pylist()}
    assert found == {"USD": Decimal("0.001"), "EUR": as_decimal(7)}


def test_a_prefix_stands_for_all_outputs_below_it_each_once(tmp_path: Path) -> None:
    made_output(tmp_path / "team" / "a", [image_line(0)])
    made_output(tmp_path / "team" / "deep" / "b", [image_line(1), image_line(2)])
    one = tmp_path / "team" / "a" / "output"
    told = cost([str(tmp_path), str(one), f"{one}/"], ["output"])
    assert sorted(by(told, "images").values()) == [1, 2]
    assert len(told.standing.outputs) == 2


def test_a_job_is_counted_once_whatever_links_lead_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, far = tmp_path / "out", tmp_path / "far"
    job = out / "a" / "output"
    made_output(out / "a", [image_line(0)])
    made_output(far, [image_line(1)])
    for name, target in (("latest", job), ("self", out), ("a/up", out), ("away", far)):
        (out / name).symlink_to(target)
    told = cost([str(out), str(out / "latest"), str(job)])
    assert told.standing.outputs == (str(job),)
    assert caplog.messages == [
        f"{out}/away is a link to {far} and was not followed; name it too if it is to be counted"
    ]
    assert len(cost([str(out), str(out / "away")]).standing.outputs) == 2
    assert len(caplog.messages) == 1, "what is named is followed"


def test_a_copy_of_an_output_is_told(tmp_path: Path) -> None:
    made_output(tmp_path / "a", [image_line(0)])
    made_output(tmp_path / "other", [image_line(0)])
    assert cost([str(tmp_path)]).standing.copies == ()
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    told = cost([str(tmp_path)])
    assert told.standing.copies == ((f"{tmp_path}/a/output", f"{tmp_path}/backup/output"),)
    assert (
        f"copies     {tmp_path}/a/output, {tmp_path}/backup/output are one job (started at one "
        "time with one configuration); each was counted: leave out the copies"
    ) in notes(told)


def test_an_unfinished_output_is_said_to_be_one_and_its_workers_cost_so_far(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": f"p{i}"} for i in range(8)], shards=[0])
    assert not small.store.exists(layout.WORKER_LEDGER)
    told = cost([small.store.url])
    assert told.standing.unfinished == (small.store.url,)
    assert told.standing.simulated == (small.store.url,)
    assert total(told)["cost"] == as_decimal(small.bill().total_amount)


def test_what_is_committed_while_it_is_asked_is_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = run_small_job(tmp_path, [{"prompt": f"p{i}"} for i in range(12)], shards=[0])

    def while_others_work(store: Store, *asked: Any) -> Iterator[pa.Table]:
        work_on(small, shards=[1])
        yield from image_lines_of(store, *asked)
        work_on(small, shards=[2])

    monkeypatch.setattr(cost_lines, "image_lines_of", while_others_work)
    told = total(cost([small.store.url]))
    assert told["cost"] == as_decimal(small.bill().total_amount)
    assert told["images"] == 8


def test_an_output_that_was_stopped_before_its_plan_costs_nothing(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "p"}])
    small.store.delete(layout.PLAN_SHARDS)
    told = cost([small.store.url])
    assert told.totals.num_rows == 0


def test_a_missing_ledger_object_is_named(tmp_path: Path) -> None:
    store = made_output(tmp_path, [image_line()])
    (entry,) = [e for e in store.listing("ledger/") if e.key != layout.WORKER_LEDGER]
    store.delete(entry.key)
    with pytest.raises(CorruptOutput, match=f"{entry.key} is named by a counted commit but does"):
        cost([store.url])


def test_a_damaged_ledger_object_is_named(tmp_path: Path) -> None:
    store = made_output(tmp_path, [image_line()])
    (entry,) = [e for e in store.listing("ledger/") if e.key != layout.WORKER_LEDGER]
    store.put(entry.key, b"PAR1 no more")
    with pytest.raises(CorruptOutput, match=f"{entry.key} is damaged"):
        cost([store.url])


def test_a_ledger_of_another_version_is_refused_by_its_missing_column(tmp_path: Path) -> None:
    store = made_output(tmp_path, [image_line()])
    store.put(layout.WORKER_LEDGER, to_parquet(ledger_of([]).drop_columns(["region"])))
    with pytest.raises(CorruptOutput, match=r"has no column 'region'.*the version that made it"):
        cost([store.url])


def test_a_path_with_nothing_and_a_path_without_a_job_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(OutputMissing, match=r"nothing is at .*/none; expected the output\.path"):
        cost([str(tmp_path / "none")])
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(OutputMissing, match=r"photos holds cats/, a\.png, but no job"):
        cost([str(tmp_path / "photos")])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("modle", "'modle' is no dimension: did you mean model"),
        ("tags", "did you mean tag:NAME, for example tag:customer"),
        ("tag:", "did you mean tag:NAME"),
        ("model,model", "names 'model' twice"),
        ("zzz", "'zzz' is no dimension: known are job, project, model"),
    ],
)
def test_an_unknown_dimension_names_the_near_ones(tmp_path: Path, asked: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cost([str(tmp_path)], [asked])


def test_tag_values_of_a_sliced_column_are_those_of_its_rows() -> None:
    maps = pa.array(
        [[("a", "1"), ("b", "2")], None, [], [("b", "3")]], pa.map_(pa.string(), pa.string())
    )
    column = pa.chunked_array([maps.slice(1), maps])
    assert tag_values(column, "b").to_pylist() == [None, None, "3", "2", None, None, "3"]


def test_a_store_below_another_reads_its_folder(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a/b/c.txt", b"x")
    below = store.below("a").below("b")
    assert below.get("c.txt") == b"x"
    assert below.url == f"{tmp_path}/a/b"
