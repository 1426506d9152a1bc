"""Who cancels a job means every try of it, until that is taken back or somebody resumes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.job_log import cancel_asked, write_run_end
from conf.errors import Cancelled
from jobs.cancellation import refuse_cancelled
from jobs.cli import main
from tests.small_jobs import SmallJob, begin_run, run_small_job

ROWS = [{"prompt": f"a picture of number {n}"} for n in range(8)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def half_done(tmp_path: Path) -> SmallJob:
    return run_small_job(tmp_path, ROWS, shards=[1], **TINY)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["cancel", *arguments]) == 0
    return capsys.readouterr().out


def test_a_cancelled_job_is_not_gone_on_with_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = half_done(tmp_path).store
    refuse_cancelled(store)
    text = said(capsys, store.url)
    assert "'imagemill run --resume', as a RayJob calls it, does not go on before that" in text
    with pytest.raises(Cancelled) as caught:
        refuse_cancelled(store)
    assert f"run 1 of {store.url} was cancelled" in str(caught.value)
    assert f"imagemill resume {store.url}" in str(caught.value)
    assert f"imagemill cancel {store.url} --undo" in str(caught.value)


def test_a_job_between_two_tries_can_be_cancelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = half_done(tmp_path).store
    write_run_end(store, 1, "the store did not answer")
    assert "none begins by itself now" in said(capsys, store.url)
    with pytest.raises(Cancelled):
        refuse_cancelled(store)


def test_a_cancellation_that_is_taken_back_holds_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = half_done(tmp_path).store
    said(capsys, store.url)
    assert "taken back; 'imagemill run --resume' goes on" in said(capsys, store.url, "--undo")
    refuse_cancelled(store)
    assert not cancel_asked(store, 1)
    assert "nothing to take back" in said(capsys, store.url, "--undo")


def test_a_run_that_somebody_began_after_the_cancelled_one_may_be_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = half_done(tmp_path).store
    said(capsys, store.url)
    begin_run(store)
    refuse_cancelled(store)
