"""Rows that kill or hang their workers: found, quarantined alone, and nothing else lost."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.records import offsets_of
from cluster.suspicion import Suspicion, Trial
from cluster.worker import WorkerOutcome
from operators.engine import EngineInfo
from tests.one_worker import Hooked, Stage, quarantine

ROWS: list[dict[str, Any]] = [{"prompt": f"picture {n}", "id": f"label-{n}"} for n in range(24)]
SHARD = {"input.shard_rows": 16, "engine.max_batch": 4}
BAD = 5


class Killed(Exception):
    """Stands for the end of a process."""


class Dying(Hooked):
    """An engine whose worker is lost while a bad row is inside, without a word to anybody."""

    def __init__(self, stage: Stage, name: str, bad: set[int]) -> None:
        super().__init__(stage.small, before_tick=self._die)
        self._stage, self._name, self._bad = stage, name, bad

    def _die(self) -> None:
        if self.admitted and self._bad & {int(image_id[:9]) for image_id in self.admitted}:
            self._stage.link.coordinator.gone(self._name, crashed=True)
            raise Killed


def work_until_finished(stage: Stage, bad: set[int]) -> int:
    """Workers one after the other; returns how many of them died."""
    for number in range(40):
        if stage.link.coordinator.snapshot().finished:
            return number - 1
        name = f"w{number}"
        with contextlib.suppress(Killed):
            stage.run(Dying(stage, name, bad), name=name)
    raise AssertionError("forty workers were not enough")


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_row_that_kills_its_workers_is_found_and_quarantined_alone(
    tmp_path: Path, max_attempts: int
) -> None:
    stage = Stage(tmp_path, ROWS, **SHARD, **{"job.max_attempts": max_attempts})
    deaths = work_until_finished(stage, {BAD})
    assert stage.whole() == (23, 1, 0)
    (row,) = quarantine(stage.small.store)
    assert (row["row_id"], row["stage"], row["reason"]) == (BAD, "worker", "worker_died")
    assert row["id"] == f"label-{BAD}"
    assert row["message"] == (
        f"{deaths} workers died while they worked on this row, the last one while it worked on "
        "nothing else (job.max_attempts)"
    )
    assert deaths <= 6, "sixteen rows are halved four times"


def test_two_rows_that_kill_in_one_shard_are_both_found(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ROWS, **SHARD)
    work_until_finished(stage, {2, 11})
    assert stage.whole() == (22, 2, 0)
    assert [row["row_id"] for row in quarantine(stage.small.store)] == [2, 11]


def test_after_the_first_death_a_shard_is_tried_as_a_whole_for_it_may_be_innocent() -> None:
    first = Suspicion().died(None)
    assert first.trial({1, 2, 3}) == Trial(suspects=((1, 4),), rows=((1, 4),))
    again = first.died(first.trial({1, 2, 3}))
    assert again.trial({1, 2, 3}) == Trial(suspects=((1, 4),), rows=((1, 3),))


def test_a_row_is_not_convicted_before_a_worker_died_over_it_alone() -> None:
    """Its last companion was cleared; it was suspected often enough, and never tried alone."""
    suspicion = Suspicion(deaths=3, rows=((0, 2),))
    first = suspicion.trial({0, 1, 2, 3})
    left = suspicion.survived(first)
    assert left is not None
    alone = left.trial({1, 2, 3})
    assert alone == Trial(suspects=((1, 2),), rows=((1, 2),))
    assert not left.convicted(alone, 3)
    died = left.died(alone)
    assert died.convicted(died.trial({1, 2, 3}), 3)


def test_a_row_is_not_convicted_for_one_that_was_committed_before_its_worker_died() -> None:
    suspicion = Suspicion(deaths=2).died(Trial(suspects=((0, 1),), rows=((0, 1),)))
    other = suspicion.trial({3})
    assert other == Trial(suspects=((3, 4),), rows=((3, 4),))
    assert not suspicion.convicted(other, 3)


def test_rows_that_kill_whoever_reads_them_are_set_aside_together(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ROWS, **SHARD, **{"job.max_attempts": 2})
    for name in ("a", "b", "c"):
        stage.link.acquire(name)
        stage.link.coordinator.gone(name, crashed=True)
    assert stage.run(name="d").error is None
    assert stage.whole() == (8, 16, 0)
    found = quarantine(stage.small.store)
    assert {row["reason"] for row in found} == {"worker_died"}
    assert {row["message"] for row in found} == {
        "3 workers died when they read this row's shard (job.max_attempts)"
    }


class Hanging(Hooked):
    """An engine that never comes back from a tick while a bad row is inside."""

    def __init__(self, stage: Stage, bad: set[int]) -> None:
        super().__init__(stage.small, before_tick=self._hang)
        self._bad = bad
        self.never = threading.Event()

    def _hang(self) -> None:
        if self._bad & {int(image_id[:9]) for image_id in self.admitted}:
            self.never.wait(60)


def run_hanging(stage: Stage, name: str) -> WorkerOutcome:
    engine = Hanging(stage, {BAD})
    outcome = stage.run(engine, name=name)
    engine.never.set()
    return outcome


def test_a_row_that_hangs_the_engine_is_found_and_quarantined_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ROWS, **SHARD, **{"job.row_timeout_s": 0.3})
    outcomes = []
    while not stage.link.coordinator.snapshot().finished:
        outcomes.append(run_hanging(stage, f"w{len(outcomes)}"))
        assert len(outcomes) < 20
    hung = [outcome for outcome in outcomes if outcome.error]
    assert {outcome.error for outcome in hung} == {"EngineHung"}
    assert {outcome.message for outcome in hung} == {
        "the engine did not come back within job.row_timeout_s=0.3"
    }
    assert all(outcome.retryable for outcome in hung)
    assert stage.whole() == (23, 1, 0)
    (row,) = quarantine(stage.small.store)
    assert (row["row_id"], row["reason"]) == (BAD, "worker_died")


def test_only_what_was_in_the_engine_that_hung_is_suspected(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ROWS, **SHARD, **{"job.row_timeout_s": 0.3})
    run_hanging(stage, "w0")
    first = stage.link.acquire("w1")
    assert first.suspicion is not None  # type: ignore[union-attr]
    assert first.suspicion.deaths == 1  # type: ignore[union-attr]
    assert BAD in offsets_of(first.suspicion.rows or ())  # type: ignore[union-attr]


class Endless(Hooked):
    """An engine that says of one row that its ticks take too long."""

    def overdue(self, limit_s: float) -> list[Any]:
        assert limit_s == 900
        return [r for r in self.inside if r.row_id == BAD]

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.small)
        self.inside: list[Any] = []

    @property
    def info(self) -> EngineInfo:
        return super().info

    def admit(self, requests: Any) -> None:
        self.inside += requests
        super().admit(requests)

    def discard(self, unwanted: Any) -> int:
        self.inside = [r for r in self.inside if not unwanted(r)]
        return super().discard(unwanted)


def test_a_row_that_is_denoised_without_an_end_is_cut_and_costs_no_worker(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ROWS, **SHARD, **{"sampling.steps": 50})
    assert stage.run(Endless(stage)).error is None
    assert stage.whole() == (23, 1, 0)
    (row,) = quarantine(stage.small.store)
    assert (row["row_id"], row["stage"], row["reason"]) == (BAD, "denoise", "row_timeout")
    assert row["message"].startswith("it was denoised for more than 900 s without an end")


def test_once_all_suspects_are_done_the_others_come_under_suspicion() -> None:
    suspicion = Suspicion(deaths=2, rows=((0, 4),))
    assert suspicion.trial({6, 7, 8}) == Trial(suspects=((6, 9),), rows=((6, 8),))
    died = suspicion.died(suspicion.trial({6, 7, 8}))
    assert died == Suspicion(deaths=3, rows=((6, 8),))
