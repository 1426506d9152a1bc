"""Spreading what no image has over the images: exact, within output and day, with a price."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.money import as_decimal
from conf.errors import ConfigError
from jobs.cost import CostAnswer, cost
from tests.made_ledgers import NOON, image_line, made_output, other_line, worker_line


def spread(where: object, *by: str) -> CostAnswer:
    return cost([str(where)], by, spread_others=True)


def found(answer: CostAnswer, name: str = "cost") -> dict[Any, Any]:
    return {
        values[0] if len(values) == 1 else values: row[name]
        for row in answer.rows.to_pylist()
        for values in [tuple(row[n] for n in answer.by)]
    }


def test_a_model_pays_for_waiting_by_its_device_time(tmp_path: Path) -> None:
    lines = [
        image_line(0, gpu_ns=3_000, amount_nano=30),
        image_line(1, model="sd3", gpu_ns=1_000, amount_nano=10),
    ]
    others = [worker_line("idle", amount_nano=401), worker_line("wasted", amount_nano=40)]
    store = made_output(tmp_path, lines, [*others, other_line(amount_nano=4)])
    told = spread(store.url, "model")
    assert found(told, "idle") == {"sdxl": as_decimal(301), "sd3": as_decimal(100)}
    assert found(told, "wasted") == {"sdxl": as_decimal(30), "sd3": as_decimal(10)}
    assert found(told) == {"sdxl": as_decimal(30 + 301 + 30 + 3), "sd3": as_decimal(121)}
    assert found(told, "cost_per_image") == found(told)
    assert told.totals["cost"].to_pylist() == [as_decimal(485)]


def test_each_outputs_waiting_is_paid_by_its_own_images(tmp_path: Path) -> None:
    for name, idle in (("busy", 100), ("lazy", 9_000)):
        tags = [("customer", name)]
        made_output(
            tmp_path / name,
            [image_line(0, tags=tags, amount_nano=1)],
            [worker_line(amount_nano=idle, tags=[])],
        )
    told = spread(tmp_path, "tag:customer")
    assert found(told) == {"busy": as_decimal(101), "lazy": as_decimal(9_001)}


def test_waiting_stays_on_its_day(tmp_path: Path) -> None:
    later = NOON + timedelta(days=1)
    others = [
        worker_line(amount_nano=10),
        worker_line("overhead", start=later, amount_nano=20),
        worker_line("wasted", start=later + timedelta(days=1), amount_nano=40),
    ]
    lines = [image_line(0, amount_nano=1), image_line(1, start=later, amount_nano=2)]
    told = spread(made_output(tmp_path, lines, others).url, "day", "model")
    assert found(told) == {
        (date(2026, 3, 1), "sdxl"): as_decimal(11),
        (date(2026, 3, 2), "sdxl"): as_decimal(22),
        (date(2026, 3, 3), None): as_decimal(40),
    }, "no image was made on the last day"


def test_what_has_no_price_is_not_spread(tmp_path: Path) -> None:
    others = [worker_line("idle", amount_nano=5), worker_line("wasted", amount_nano=None)]
    told = spread(made_output(tmp_path, [image_line(amount_nano=1)], others).url, "model")
    assert found(told) == {"sdxl": as_decimal(1), None: as_decimal(5)}
    assert found(told, "unpriced_lines") == {"sdxl": 0, None: 1}


def test_kinds_cannot_be_asked_for_and_spread(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--by kind has nothing to show beside it; leave one"):
        spread(made_output(tmp_path, [image_line()]).url, "kind")


LINES = st.lists(
    st.builds(
        dict,
        model=st.sampled_from(["a", "b", None]),
        steps=st.sampled_from([10, 20]),
        gpu_ns=st.integers(0, 10**15),
        amount_nano=st.integers(0, 10**15),
    ),
    min_size=1,
    max_size=8,
)
OTHERS = st.lists(
    st.tuples(st.sampled_from(["idle", "wasted", "egress"]), st.integers(-(10**6), 10**15)),
    max_size=4,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=LINES, others=OTHERS)
def test_the_rows_sum_exactly_to_the_total(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[dict[str, Any]],
    others: list[tuple[str, int]],
) -> None:
    store = made_output(
        tmp_path_factory.mktemp("spread"),
        [image_line(n, **line) for n, line in enumerate(lines)],
        [worker_line(kind, line_id=str(n), amount_nano=a) for n, (kind, a) in enumerate(others)],
    )
    told = spread(store.url, "model,steps")
    for name in ("cost", "used", "idle", "wasted", "egress"):
        whole = told.totals[name][0].as_py() or Decimal(0)
        assert sum(value or Decimal(0) for value in told.rows[name].to_pylist()) == whole
    assert sum(told.rows["images"].to_pylist()) == len(lines)
    assert sum(told.rows["gpu_hours"].to_pylist()) == pytest.approx(
        told.totals["gpu_hours"][0].as_py()
    )
