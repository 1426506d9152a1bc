"""Status tells from the store alone how far a job is and what to do next."""

from __future__ import annotations

from dataclasses import replace
from os import getpid
from pathlib import Path
from platform import node

import pytest

from cluster import layout
from cluster.job_log import ask_cancel, last_run, open_retry, write_run_end
from cluster.plan_file import write_plan
from cluster.store import Store
from conf.errors import CorruptOutput, OutputMissing
from jobs.cli import main
from jobs.presence import Presence
from jobs.rejections import Rejections
from jobs.status import Status, status, status_lines
from jobs.verify import report_lines, verify
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job

ROWS = [{"prompt": text} for text in ("a", "b", "", "d", "e", "f")]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


def look(store: Store) -> Status:
    """The status, without much patience for a driver that may be dead."""
    return status(store, watch_s=0.02)


def line(found: Status, name: str) -> str:
    (text,) = [t for t in status_lines(found) if t.startswith(f"{name} ")]
    return text[11:]


def finish(small: SmallJob, generation: int = 0) -> None:
    small.store.put_if_absent(layout.manifest(generation), b"{}")


def test_a_finished_job_whose_input_has_bad_rows_points_to_the_input(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    finish(small)
    found = look(small.store)
    assert (found.rows, found.committed, found.quarantined, found.pending) == (6, 5, 1, 0)
    assert (found.images, found.shards, found.sealed, found.attempts) == (5, 2, 2, 1)
    assert found.finished
    assert sum(found.bill.amount.values()) == found.bill.total_amount
    assert line(found, "job") == "small, finished"
    assert line(found, "rows") == "6: 5 committed, 1 quarantined, 0 pending"
    assert line(found, "images").startswith("5 (")
    assert line(found, "shards") == "2 of 2 sealed"
    assert " USD (used " in line(found, "cost")
    assert line(found, "last run").startswith("number 1, started 2")
    assert line(found, "SIMULATED").startswith("no model ran")
    assert found.rejected is not None
    assert found.rejected.at_read == 1
    assert line(found, "next") == "mend these rows in the input and run them as a new job"


def test_a_finished_job_with_rows_that_failed_later_points_to_retry(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    finish(small)
    seen = Rejections(rows=1, seen=1, kinds=1)
    found = replace(look(small.store), rejected=seen, simulated=False, url="/out/a b")
    assert line(found, "next").startswith("imagemill retry '/out/a b' ")
    assert not any(text.startswith("SIMULATED") for text in status_lines(found))
    some = replace(found, rejected=Rejections(rows=3, seen=3, kinds=2, at_read=2))
    assert line(some, "next") == (
        "imagemill retry '/out/a b' works on the quarantined rows again; 2 of them only the input "
        "mends"
    )


def test_a_file_that_was_left_out_is_named_once(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, ROWS, **TINY)
    inputs = [replace(item, problem=f"{item.source} is damaged") for item in small.plan.inputs()]
    small.store.delete(layout.PLAN_INPUTS)
    small.store.delete(layout.PLAN_SHARDS)
    write_plan(small.store, inputs, [])
    assert line(look(small.store), "left out") == f"{inputs[0].source} is damaged"


def test_a_finished_job_without_quarantined_rows_has_nothing_left_to_do(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": "a"}], **TINY)
    finish(small)
    assert line(look(small.store), "next").startswith("nothing is left to do; imagemill verify")


def test_a_job_that_was_stopped_points_to_resume(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    found = look(small.store)
    assert (found.committed, found.pending, found.sealed) == (2, 4, 1)
    assert line(found, "job") == "small, not finished"
    assert line(found, "next").startswith(f"imagemill resume {small.store.url}")


def test_a_job_that_has_not_run_yet(tmp_path: Path) -> None:
    found = look(prepare_small_job(tmp_path, ROWS, **TINY).store)
    assert found.last_run is None
    assert found.bill.total_amount == 0
    assert line(found, "last run") == "none yet"
    assert line(found, "rows") == "6: 0 committed, 0 quarantined, 6 pending"


def test_a_job_that_was_stopped_before_its_plan_was_written(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, ROWS, **TINY)
    small.store.delete(layout.PLAN_SHARDS)
    found = look(small.store)
    assert not found.planned
    assert not any(text.startswith("rows") for text in status_lines(found))
    assert line(found, "next").startswith("imagemill resume ")


def test_a_cancel_that_was_asked_for_is_told(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    ask_cancel(small.store, 1)
    assert look(small.store).cancel_asked
    assert line(look(small.store), "last run").endswith(
        "with 1 worker, asked to stop; killed or frozen: it gives no sign of life"
    )
    write_run_end(small.store, 1, "cancelled")
    assert line(look(small.store), "last run").endswith("with 1 worker; ended: cancelled")


def test_a_run_that_is_at_work_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    assert look(small.store).driver is None
    assert line(look(small.store), "next") == f"imagemill resume {small.store.url}"
    record = last_run(small.store)
    assert record is not None
    with Presence(small.config, record, every_s=0.01):
        found = status(small.store, watch_s=30)
    assert line(found, "last run").endswith(f"; at work on host {node()} as process {getpid()}")
    assert line(found, "next").startswith("wait for its end, or stop it: imagemill cancel ")


def test_a_damaged_record_of_a_runs_end_is_named(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    small.store.put(layout.run_end(1), b"{}")
    with pytest.raises(CorruptOutput, match=r"^ends/000001\.json is damaged: 'reason'"):
        look(small.store)


def test_a_retry_reopens_the_job(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    finish(small)
    open_retry(small.store, (0,), after=0)
    found = look(small.store)
    assert (found.generation, found.finished) == (1, False)
    assert line(found, "job") == "small, not finished, 1 retry"


def test_broken_input_files_are_told_with_their_problem(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "broken.parquet").write_bytes(b"no parquet")
    found = look(prepare_small_job(tmp_path, ROWS, **TINY).store)
    (told,) = found.broken_files
    assert told.startswith(str(tmp_path / "input" / "broken.parquet"))
    assert line(found, "left out") == told


def test_a_folder_without_a_job_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(
        OutputMissing, match=r"has no job\.json; expected the output\.path of a job"
    ):
        look(Store(str(tmp_path)))


def test_cancel_promises_nothing_for_a_run_that_may_have_been_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    assert main(["cancel", small.store.url]) == 0
    assert "if it is still alive, it commits what is finished first" in capsys.readouterr().out
    write_run_end(small.store, 1, "cancelled")
    assert main(["cancel", small.store.url]) == 0
    assert "no run is under way, and none begins by itself now" in capsys.readouterr().out


def test_what_workers_without_a_price_cost_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    unknown = {"pricing.instance_type": "unheard.of"}
    small = run_small_job(tmp_path, [{"prompt": "a"}], **TINY, **unknown)
    found = look(small.store)
    assert line(found, "cost") == "unknown: no worker has a price"
    assert line(found, "unpriced").startswith("1 of 1 worker: ")
    told = report_lines(verify(small.store))
    assert "cost       unknown: no worker has a price" in told
