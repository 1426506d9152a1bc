"""A retry opens the generation after the one that it saw finished, and only where nobody works."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import layout
from cluster.job_log import generation, last_run, open_retry, write_run_end
from conf.errors import ConfigError, OutputTaken
from jobs import hopeless as module
from jobs.execute import version
from jobs.hopeless import hopeless, tell_hopeless
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


def said_by_a_retry(small: SmallJob, caplog: pytest.LogCaptureFixture) -> str:
    """What a retry warns of before it begins; this one is then refused."""
    write_run_end(small.store, 1, "ended")
    with pytest.raises(ConfigError, match=r"budget\.alert"):
        retry(small.store.url, ["budget.alert=/no/such/program"])
    (said,) = [text for text in caplog.messages if "when the input was read" in text]
    return said


def test_rows_that_a_retry_can_only_reject_again_are_told_before_it_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = finished(tmp_path)
    begun = "2 of 2 quarantined rows were rejected when the input was read (empty_prompt 2)"
    assert said_by_a_retry(small, caplog) == f"{begun} by version 0.0.0; this is {version()}, " + (
        "which may read more"
    )
    caplog.clear()
    monkeypatch.setattr(module, "version", lambda: "0.0.0")
    assert said_by_a_retry(small, caplog) == (
        f"{begun}: they are rejected again, unless the input is mended and run as a new job; this "
        "retry mends nothing and costs a start of workers"
    )


def test_where_some_rows_may_be_mended_only_the_others_are_told() -> None:
    rejected = {("read", "empty_prompt"): 1, ("denoise", "nan"): 2}
    assert hopeless(rejected, 3, before="1", now="1") == (
        "1 of 3 quarantined rows was rejected when the input was read (empty_prompt 1): it is "
        "rejected again, unless the input is mended and run as a new job"
    )
    assert hopeless({("denoise", "nan"): 2}, 2, before="1", now="1") == ""


def test_a_table_of_reasons_that_is_damaged_keeps_nobody_from_a_retry_which_replaces_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = finished(tmp_path)
    key = small.store.listing("quarantine/")[0].key
    small.store.put(key, b"it was a table once")
    tell_hopeless(small.store, small.plan)
    (said,) = caplog.messages
    assert said.startswith(f"why rows are quarantined is not known: {key} is damaged: ")


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
