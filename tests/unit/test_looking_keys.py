"""Commands that only look at a job use the keys that they are given, or say that they do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.cli import main
from tests.small_jobs import run_small_job

ROWS = [{"prompt": f"picture {number}"} for number in range(8)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
DEAR = {"pricing.price_per_hour": "3600"}


def test_a_status_is_told_by_the_caps_that_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"budget.store": str(tmp_path / "budgets"), "job.project": "shop"}
    caps = {"budget.project_max_cost": "100", "budget.max_cost": "50"}
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY, **DEAR, **places, **caps)
    assert main(["status", small.store.url]) == 0
    asked = capsys.readouterr().out
    assert re.search(r"^budget     .* of 50 USD used$", asked, re.MULTILINE)
    assert re.search(r"^project    shop: 0 of 100 USD spent", asked, re.MULTILINE)
    given = ["budget.project_max_cost=9", "budget.max_cost=7"]
    assert main(["status", small.store.url, *given]) == 0
    asked = capsys.readouterr().out
    assert re.search(r"^budget     .* of 7 USD used$", asked, re.MULTILINE)
    assert re.search(r"^project    shop: 0 of 9 USD spent", asked, re.MULTILINE)
    elsewhere = f"budget.store={tmp_path / 'other'}"
    assert main(["status", small.store.url, elsewhere, "storage.patience_s=5"]) == 0
    assert "shop: 0 of 100 USD spent; nothing reserved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "key", "takes"),
    [
        (
            "status",
            "cluster.workers=3",
            "storage.*, budget.max_*, budget.project_max_*, budget.store, pricing.storage_months",
        ),
        ("status", "budget.alert=true", "storage.*, budget.max_*"),
        ("verify", "budget.project_max_cost=9", "storage.*"),
        ("verify", "pricing.price_per_hour=9", "storage.*"),
        ("cancel", "budget.max_cost=9", "storage.*"),
        ("gc", "budget.max_cost=9", "storage.*"),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(
    command: str, key: str, takes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    assert main([command, small.store.url, key, "budget.store=there"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"imagemill: '{key}' changes nothing that 'imagemill {command}' tells or does; it takes "
        f"{takes}"
    )
    assert said.endswith(" keys; leave it out, or give it to imagemill resume\n")
