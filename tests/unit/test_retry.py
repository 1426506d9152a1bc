"""A retry opens the generation after the one that it saw finished, and only where nobody works."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import layout
from cluster.job_log import generation, last_run, open_retry
from conf.errors import OutputTaken
from jobs.presence import Presence
from jobs.run import retry
from tests.small_jobs import SmallJob, run_small_job

ROWS = [{"prompt": text} for text in ("a", "b", "", "d", "", "f")]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def finished(tmp_path: Path) -> SmallJob:
    """Two shards with a quarantined row each; its run never said that it ended."""
    small = run_small_job(tmp_path, ROWS, **TINY)
    small.store.put_if_absent(layout.manifest(0), b"{}")
    return small


def test_of_two_retries_of_one_generation_the_later_is_refused_although_the_first_was_quick(
    tmp_path: Path,
) -> None:
    store = finished(tmp_path).store
    open_retry(store, (0, 1), after=0)
    store.put_if_absent(layout.manifest(1), b"{}")
    with pytest.raises(OutputTaken, match=r"^another retry of .* was asked for first, so nothing"):
        open_retry(store, (0, 1), after=0)
    assert generation(store) == 1


def test_a_retry_is_refused_while_another_driver_is_at_work(tmp_path: Path) -> None:
    small = finished(tmp_path)
    record = last_run(small.store)
    assert record is not None
    with (
        Presence(small.config, record, every_s=0.02),
        pytest.raises(OutputTaken, match=r"^run 1 is at work on "),
    ):
        retry(small.store.url)
    assert generation(small.store) == 0
