"""Prices and caps are a run's: where none begins they are refused, and all readers agree."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from cluster import layout
from cluster.actors import Snapshot
from cluster.supervisor import RunEnd
from conf.errors import ConfigError
from jobs.cli import main
from jobs.finish import finish
from jobs.run import report, resume, retry
from jobs.run_keys import keys_taken
from jobs.verify import verify
from tests.small_jobs import SmallJob, run_small_job

ROWS = [{"prompt": f"picture {number}"} for number in range(4)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
MONTHS = "pricing.storage_months=12"
REFUSED = r"^'pricing\.storage_months' is for a run, and none begins: the job at .* is finished, "


def finished(tmp_path: Path) -> SmallJob:
    small = run_small_job(tmp_path, ROWS, **TINY)
    end = RunEnd(finished=True, reason="", snapshot=cast(Snapshot, None), restarts=0)
    assert finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=1).finished
    return small


def test_a_finished_job_is_given_no_other_prices_or_caps(tmp_path: Path) -> None:
    small = finished(tmp_path)
    before = small.store.get(layout.WORKER_LEDGER)
    for command in (report, resume, retry):
        with pytest.raises(ConfigError, match=REFUSED) as caught:
            command(small.store.url, [MONTHS])
        told = f"give it to a new job; 'imagemill cost {small.store.url}' tells what this one cost"
        assert str(caught.value).endswith(told)
    with pytest.raises(ConfigError, match=r"^'budget\.alert' is for a run") as caught:
        resume(small.store.url, ["budget.alert=https://example.org/secret"])
    assert "secret" not in str(caught.value)
    assert small.store.get(layout.WORKER_LEDGER) == before
    assert verify(small.store).problems == ()


@pytest.mark.parametrize("command", ["status", "verify", "report", "gc", "cancel"])
def test_a_command_that_begins_no_run_takes_no_prices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    url = run_small_job(tmp_path, ROWS, shards=[], **TINY).store.url
    assert main([command, url, "pricing=local"]) == 2
    assert (
        f"'pricing' is for a run, and this command begins none; nothing was changed; leave the key "
        f"out, or go on with the job with: imagemill resume {url} pricing=…"
    ) in capsys.readouterr().err


def test_a_run_that_finds_its_job_finished_keeps_what_the_job_cost() -> None:
    words = [
        "model=flux",
        "pricing=aws",
        "pricing.currency=USD",
        "budget.max_cost=4",
        "cluster.a=2",
    ]
    assert keys_taken(words, finished=False) == ["pricing=aws", "budget.max_cost=4", "cluster.a=2"]
    assert keys_taken(words, finished=True) == ["cluster.a=2"]
