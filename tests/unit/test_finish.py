"""The end of a run: what it may claim, whose generation it finishes, and what it leaves behind."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from cluster import layout
from cluster.coordinator import Snapshot
from cluster.job_log import is_finished, open_retry
from cluster.lifetime import persist
from cluster.records import Stamp, stamp_from_json
from cluster.store import Store
from cluster.supervisor import RunEnd
from cluster.tables import read_parquet
from conf.errors import CorruptOutput, StoreRefused
from jobs.cli import main
from jobs.execute import result_of
from jobs.finish import Finish, finish
from jobs.run import report, resume
from tests.small_jobs import SmallJob, run_small_job, work_on
from tests.stores import ONCE

ROWS = [{"prompt": text} for text in ("a", "b", "", "d", "e", "f")]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
LEFT = layout.attempt_object("metadata", 0, 1, 7, "parquet")
FINISHED = RunEnd(finished=True, reason="", snapshot=cast(Snapshot, None), restarts=0)


class Undeletable(Store):
    """A store on which nothing may be deleted."""

    def delete(self, key: str) -> None:
        raise StoreRefused(f"cannot write {key}: these credentials may not delete")


def ended(small: SmallJob, store: Store | None = None, *, generation: int = 0) -> Finish:
    """A run over the job took it for finished."""
    store = store or small.store
    return finish(store, small.job, small.plan, generation=generation, end=FINISHED, wall_s=1.0)


def test_a_run_that_takes_itself_for_finished_writes_no_manifest_over_pending_rows(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    found = ended(small)
    assert not is_finished(small.store, 0)
    assert small.store.get(layout.MANIFEST) is None
    assert result_of(small.job, found).status == 3
    assert found.facts.reason == (
        "the run took itself for finished, but 1 of 2 shards are sealed and 4 rows pending; "
        "no manifest was written"
    )


def test_a_driver_that_wakes_late_finishes_its_own_generation_and_not_the_retry_after_it(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    assert ended(small).finished
    open_retry(small.store, (0,), after=0)
    assert ended(small, generation=0).finished
    assert not is_finished(small.store, 1)


def lived_on(small: SmallJob) -> Stamp:
    """The worker of the job wakes after its end, and stamps a longer life."""
    (key,) = [entry.key for entry in small.store.listing(layout.WORKERS)]
    stamp = stamp_from_json(small.store.get(key) or b"", key)
    later = replace(stamp, seq=stamp.seq + 1, lifetime_ns=stamp.lifetime_ns + 20 * 10**9)
    persist(small.store, later)
    return later


def billed_ns(small: SmallJob) -> int:
    """The lifetimes on the lines of images and workers."""
    lines = read_parquet(small.store.get(layout.WORKER_LEDGER) or b"", ["gpu_ns"])
    return sum(lines["gpu_ns"].to_pylist()) + small.bill().ns["used"]


def test_a_driver_that_leaves_last_puts_the_life_of_its_workers_on_the_ledger(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    ended(small)
    stamp = lived_on(small)
    assert billed_ns(small) < stamp.lifetime_ns
    finish(small.store, small.job, small.plan, generation=0, end=FINISHED, wall_s=1.0, ours=False)
    assert billed_ns(small) == stamp.lifetime_ns
    assert main(["verify", small.store.url]) == 0


def test_a_ledger_that_was_overtaken_while_it_was_written_is_written_again(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    stamps: list[Stamp] = []

    class Overtaken(Store):
        """A worker of another run stamps right after the ledger was summed up."""

        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            if key == layout.WORKER_LEDGER and not stamps:
                stamps.append(lived_on(small))

    found = ended(small, Overtaken(small.store.url, ONCE))
    (stamp,) = stamps
    assert billed_ns(small) == stamp.lifetime_ns == found.bill.total_ns


def test_the_ledger_is_written_once_at_the_end_of_a_run(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    written: list[str] = []

    class Counting(Store):
        def put(self, key: str, data: bytes) -> None:
            written.append(key)
            super().put(key, data)

        def get(self, key: str) -> bytes | None:
            written.append(f"read {key}")
            return super().get(key)

    ended(small, Counting(small.store.url, ONCE))
    assert written.count(layout.WORKER_LEDGER) == 1
    assert written.count(f"read {layout.WORKER_LEDGER}") == 1


def test_a_worker_that_stamps_after_the_manifest_is_on_the_ledger_of_the_same_end(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    stamps: list[Stamp] = []

    class Overtaken(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            super().put_if_absent(key, data)
            if key.startswith("manifests/"):
                stamps.append(lived_on(small))

    found = ended(small, Overtaken(small.store.url, ONCE))
    (stamp,) = stamps
    assert billed_ns(small) == stamp.lifetime_ns == found.bill.total_ns


def test_a_job_is_not_finished_before_its_bill_is_on_the_ledger(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)

    class Dies(Store):
        """The driver dies when it writes the manifest."""

        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key.startswith("manifests/"):
                raise KeyboardInterrupt
            return super().put_if_absent(key, data)

    with pytest.raises(KeyboardInterrupt):
        ended(small, Dies(small.store.url, ONCE))
    assert billed_ns(small) == small.bill().total_ns > 0


def test_resume_of_a_finished_job_removes_what_its_killed_driver_left_and_report_does_not(
    tmp_path: Path,
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    ended(small)
    small.store.put_if_absent(LEFT, b"of an attempt that died")
    assert report(small.store.url)
    assert small.store.exists(LEFT)
    assert resume(small.store.url).status == 1
    assert not small.store.exists(LEFT)


def test_a_job_is_finished_and_reported_although_nothing_may_be_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = run_small_job(tmp_path, ROWS, **TINY)
    small.store.put_if_absent(LEFT, b"of an attempt that died")
    with caplog.at_level(logging.WARNING, "imagemill"):
        found = ended(small, Undeletable.of(small.config))
    assert found.finished
    assert layout.REPORT in found.written
    (warning,) = caplog.messages
    assert warning.startswith("what failed attempts left stays, counted by no commit: cannot write")
    assert warning.endswith(f"remove it later with: imagemill gc {small.store.url} --delete")


def test_a_report_that_could_not_be_written_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[1], **TINY)
    (Path(small.store.url) / layout.WORKER_LEDGER).mkdir(parents=True)
    assert main(["report", small.store.url]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no report was written: cannot read " in shown.err
    assert "imagemill: nothing was written; mend what the warning says, then run" in shown.err


def test_a_table_that_is_gone_ends_a_finished_job_in_words_and_hides_no_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    gone = next(iter(small.store.listing("metadata"))).key
    small.store.delete(gone)
    why = (
        f"{gone} is named by a counted commit but does not exist; reports and costs/ cannot be "
        f"written anew without it: imagemill verify {small.store.url} names all that is missing"
    )
    stopped = ended(small)
    assert f"no report was written: {why}" in caplog.messages
    assert (stopped.finished, stopped.totals.committed) == (False, 3)
    assert stopped.bill.total_amount == small.bill().total_amount > 0
    work_on(small)
    with pytest.raises(CorruptOutput, match=f"^{re.escape(why)}$"):
        ended(small)
    assert main(["report", small.store.url]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"imagemill: {why}"
