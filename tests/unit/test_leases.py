"""The lease board: sentences about single rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.leases import (
    Asked,
    Beat,
    Clock,
    Dismiss,
    Drain,
    Gone,
    Grant,
    Instruction,
    LeaseBoard,
    Returned,
    Revoke,
    Sealed,
    Survived,
    Trying,
    Wait,
)
from cluster.records import Ranges
from cluster.suspicion import Suspicion, Trial

LEASE_S = 10.0
WORKERS = ("ada", "bob", "cyd")


class Boards:
    """Makes boards and remembers them, so that each is validated when its test ends."""

    def __init__(self) -> None:
        self.made: list[LeaseBoard] = []

    def __call__(self, total: int) -> LeaseBoard:
        board = LeaseBoard(iter(range(total)), total=total, lease_s=LEASE_S)
        self.made.append(board)
        return board


@pytest.fixture
def boards() -> Iterator[Boards]:
    made = Boards()
    yield made
    for board in made.made:
        board.validate()


def ask(board: LeaseBoard, worker: str = "ada", now_s: float = 0.0) -> Instruction:
    (answer,) = board.handle(Asked(worker=worker, now_s=now_s))
    return answer


def granted(board: LeaseBoard, worker: str = "ada", now_s: float = 0.0) -> Grant:
    answer = ask(board, worker, now_s)
    assert isinstance(answer, Grant), answer
    return answer


def test_shards_are_granted_in_order_each_to_one_worker(boards: Boards) -> None:
    board = boards(3)
    grants = [granted(board, worker) for worker in WORKERS]
    assert grants == [
        Grant(worker="ada", shard_id=0),
        Grant(worker="bob", shard_id=1),
        Grant(worker="cyd", shard_id=2),
    ]
    assert board.held == 3
    assert ask(board) == Wait(worker="ada")


def test_a_job_without_shards_is_finished_at_once(boards: Boards) -> None:
    board = boards(0)
    assert board.finished
    assert ask(board) == Dismiss(worker="ada")


def test_the_last_seal_finishes_the_job_and_dismisses_everybody(boards: Boards) -> None:
    board = boards(2)
    granted(board), granted(board, "bob")
    assert board.handle(Sealed(worker="ada", shard_id=0)) == []
    assert board.handle(Sealed(worker="bob", shard_id=1)) == []
    assert board.finished
    assert ask(board) == Dismiss(worker="ada")


def test_a_seal_counts_once_and_only_from_the_holder(boards: Boards) -> None:
    board = boards(2)
    granted(board)
    board.handle(Sealed(worker="bob", shard_id=0))
    board.handle(Sealed(worker="nobody", shard_id=0))
    assert board.sealed == 0
    board.handle(Sealed(worker="ada", shard_id=0))
    board.handle(Sealed(worker="ada", shard_id=0))
    assert board.sealed == 1


def test_a_beat_extends_every_lease_of_a_worker(boards: Boards) -> None:
    board = boards(2)
    granted(board), granted(board)
    board.handle(Beat(worker="ada", now_s=8.0))
    assert board.handle(Clock(now_s=17.9)) == []
    assert board.handle(Clock(now_s=18.1)) == [Revoke(worker="ada", shards=(0, 1))]
    assert board.handle(Clock(now_s=99.0)) == []


def test_a_clock_that_jumps_back_revokes_nothing(boards: Boards) -> None:
    board = boards(1)
    granted(board, now_s=100.0)
    assert board.handle(Clock(now_s=-1e9)) == []
    assert board.held == 1


def test_a_suspect_is_granted_only_to_a_worker_that_holds_nothing(boards: Boards) -> None:
    board = boards(3)
    granted(board), granted(board, "bob")
    board.handle(Gone(worker="ada", crashed=True))
    assert granted(board, "bob").shard_id == 2, "bob holds a shard: no suspect for him"
    assert ask(board, "bob") == Wait(worker="bob")
    suspect = Grant(worker="cyd", shard_id=0, suspicion=Suspicion(deaths=1))
    assert granted(board, "cyd") == suspect
    assert ask(board, "cyd") == Wait(worker="cyd"), "a suspect is held alone"


ALL: Ranges = ((0, 8),)
HALF: Ranges = ((0, 4),)
REST: Ranges = ((4, 8),)


def try_rows(board: LeaseBoard, worker: str, suspects: Ranges, rows: Ranges) -> None:
    """Take shard 0 as a suspect and say what is tried of it."""
    assert granted(board, worker).shard_id == 0
    trial = Trial(suspects=suspects, rows=rows)
    assert board.handle(Trying(worker=worker, shard_id=0, trial=trial)) == []


def suspicion_of(board: LeaseBoard, worker: str = "zoe") -> Suspicion | None:
    return granted(board, worker).suspicion


def test_whoever_dies_in_a_trial_leaves_its_rows_as_the_suspects(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Gone(worker="ada", crashed=True))
    try_rows(board, "bob", ALL, ALL)
    board.handle(Gone(worker="bob", crashed=True))
    try_rows(board, "cyd", ALL, HALF)
    board.handle(Gone(worker="cyd", crashed=True))
    assert suspicion_of(board) == Suspicion(deaths=3, rows=HALF)


def test_the_rows_of_a_trial_that_was_survived_are_suspects_no_more(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Gone(worker="ada", crashed=True))
    try_rows(board, "bob", ALL, HALF)
    board.handle(Survived(worker="bob", shard_id=0))
    assert suspicion_of(board, "bob") == Suspicion(deaths=1, rows=REST)


def test_a_shard_whose_suspects_all_survived_is_none_any_more(boards: Boards) -> None:
    board = boards(2)
    granted(board)
    board.handle(Gone(worker="ada", crashed=True))
    try_rows(board, "bob", HALF, HALF)
    board.handle(Survived(worker="bob", shard_id=0))
    assert granted(board, "bob") == Grant(worker="bob", shard_id=0)
    assert granted(board, "bob").shard_id == 1, "and is not held alone"


def test_a_silent_worker_in_a_trial_casts_suspicion_on_its_rows(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Gone(worker="ada", crashed=True))
    try_rows(board, "bob", ALL, HALF)
    board.handle(Clock(now_s=LEASE_S + 1))
    assert suspicion_of(board) == Suspicion(deaths=2, rows=HALF)


def test_an_engine_that_failed_names_the_rows_that_were_in_it(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Returned(worker="ada", shard_id=0, failed=True, at_work=((2, 4),)))
    assert suspicion_of(board) == Suspicion(deaths=1, rows=((2, 4),))


def test_a_trial_that_was_given_back_unfinished_proves_nothing(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Gone(worker="ada", crashed=True))
    try_rows(board, "bob", ALL, HALF)
    board.handle(Returned(worker="bob", shard_id=0, failed=False))
    assert suspicion_of(board) == Suspicion(deaths=1)


def test_deaths_before_the_rows_were_read_are_counted_apart(boards: Boards) -> None:
    board = boards(1)
    for worker in ("ada", "bob", "cyd"):
        granted(board, worker)
        board.handle(Gone(worker=worker, crashed=True))
    found = suspicion_of(board)
    assert found == Suspicion(deaths=3, unread=2), "the first worker was not asked to tell"
    assert found.unreadable(2)
    assert not found.unreadable(3)


def test_words_about_a_trial_of_a_shard_not_held_are_ignored(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Trying(worker="bob", shard_id=0, trial=Trial(suspects=ALL, rows=HALF)))
    board.handle(Survived(worker="bob", shard_id=0))
    assert board.held == 1


def test_a_shard_returned_unharmed_goes_to_the_back_and_is_no_suspect(boards: Boards) -> None:
    board = boards(3)
    granted(board), granted(board)
    board.handle(Returned(worker="ada", shard_id=0, failed=False))
    board.handle(Returned(worker="ada", shard_id=1, failed=False))
    assert granted(board, "bob") == Grant(worker="bob", shard_id=0)
    board.handle(Returned(worker="bob", shard_id=0, failed=False))
    assert [granted(board, "bob").shard_id for _ in range(3)] == [1, 0, 2]


def test_a_worker_that_left_in_peace_makes_no_suspects(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Gone(worker="ada", crashed=False))
    assert granted(board, "bob").suspicion is None


def test_a_clean_shard_behind_a_suspect_is_not_held_up_by_it(boards: Boards) -> None:
    board = boards(4)
    granted(board), granted(board, "bob"), granted(board, "bob")
    board.handle(Gone(worker="ada", crashed=True))
    board.handle(Returned(worker="bob", shard_id=1, failed=False))
    assert granted(board, "bob").shard_id == 1
    assert granted(board, "bob").shard_id == 3


def test_words_of_unknown_workers_and_of_shards_not_held_are_ignored(boards: Boards) -> None:
    board = boards(1)
    assert board.handle(Gone(worker="ghost", crashed=True)) == []
    assert board.handle(Returned(worker="ghost", shard_id=0, failed=True)) == []
    granted(board)
    assert board.handle(Returned(worker="ada", shard_id=7, failed=True)) == []
    assert board.held == 1


def test_a_drained_board_dismisses_everybody_and_still_takes_seals(boards: Boards) -> None:
    board = boards(2)
    granted(board)
    board.handle(Drain())
    assert ask(board) == Dismiss(worker="ada")
    assert ask(board, "bob") == Dismiss(worker="bob")
    board.handle(Sealed(worker="ada", shard_id=0))
    assert board.sealed == 1
    assert not board.finished


def test_workers_without_a_sign_of_life_for_longer_than_a_lease_are_silent(boards: Boards) -> None:
    board = boards(1)
    assert board.silent(1e9) == (), "nobody is known yet"
    granted(board)
    board.handle(Beat(worker="bob", now_s=5.0))
    assert board.silent(LEASE_S) == ()
    assert board.silent(LEASE_S + 1) == ("ada",)
    assert board.silent(LEASE_S + 6) == ("ada", "bob"), "with shards or without"
    board.handle(Beat(worker="bob", now_s=LEASE_S + 6))
    board.handle(Clock(now_s=LEASE_S + 6))
    assert board.silent(LEASE_S + 6) == ("ada",), "also after its leases ran out"
    board.handle(Gone(worker="ada", crashed=True))
    assert board.silent(LEASE_S + 6) == ()


def test_a_silent_workers_death_is_no_second_failure_of_its_shards(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Clock(now_s=LEASE_S + 1))
    board.handle(Gone(worker="ada", crashed=True))
    assert granted(board, "bob", LEASE_S + 1).suspicion == Suspicion(deaths=1)
