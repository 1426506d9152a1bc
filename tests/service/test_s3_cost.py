"""Costs of outputs on S3, below a prefix."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.money import as_decimal
from cluster.store import Store
from conf.errors import OutputMissing
from jobs.cost import cost, export_focus, find_outputs
from tests.small_jobs import run_small_job
from tests.stores import ONCE


def test_a_prefix_on_s3_is_asked_like_a_folder(s3_url: str, tmp_path: Path) -> None:
    bills = 0
    for name in ("a", "deep/b"):
        small = run_small_job(
            tmp_path / name,
            [{"prompt": f"p{i}"} for i in range(8)],
            **{"output.path": f"{s3_url}/{name}", "pricing.price_per_hour": "987.654"},
        )
        bills += small.bill().total_amount
    told = cost([s3_url], ["output"])
    assert sorted(told.rows["output"].to_pylist()) == [f"{s3_url}/a", f"{s3_url}/deep/b"]
    assert told.totals["cost"].to_pylist() == [as_decimal(bills)]
    done = export_focus(find_outputs([s3_url]), tmp_path / "f.parquet")
    assert done.amounts == (("USD", bills),)


def test_a_prefix_without_a_job_says_what_is_there(s3_url: str) -> None:
    Store(s3_url, ONCE).put("prompts/a.parquet", b"")
    with pytest.raises(OutputMissing, match="holds prompts/, but no job"):
        cost([s3_url])
