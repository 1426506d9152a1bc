"""Workers for whom nothing is left leave before the others are done."""

from __future__ import annotations

from cluster.leases import (
    Asked,
    Beat,
    Dismiss,
    Gone,
    Grant,
    Instruction,
    LeaseBoard,
    Returned,
    Sealed,
    Wait,
)

ADA, BOB = "ada", "bob"


def board_of(shards: int) -> LeaseBoard:
    return LeaseBoard(iter(range(shards)), total=shards, lease_s=1000.0)


def ask(board: LeaseBoard, worker: str, now_s: float) -> Instruction:
    (answer,) = board.handle(Asked(worker=worker, now_s=now_s))
    board.validate()
    return answer


def begin(board: LeaseBoard, worker: str, *, load_s: float) -> None:
    """The worker shows itself, loads and asks."""
    board.handle(Beat(worker=worker, now_s=0.0))
    ask(board, worker, load_s)


def test_a_worker_without_work_leaves_after_as_long_as_it_took_to_begin() -> None:
    board = board_of(1)
    begin(board, ADA, load_s=0.0)
    begin(board, BOB, load_s=60.0)
    assert isinstance(ask(board, BOB, 119.9), Wait)
    assert isinstance(ask(board, BOB, 120.0), Dismiss)
    assert isinstance(ask(board, ADA, 120.0), Wait), "it holds a shard"


def test_a_worker_that_begins_in_no_time_is_kept_for_some_seconds() -> None:
    board = board_of(1)
    begin(board, ADA, load_s=0.0)
    begin(board, BOB, load_s=0.0)
    assert isinstance(ask(board, BOB, 4.9), Wait)
    assert isinstance(ask(board, BOB, 5.0), Dismiss)


def test_a_shard_that_comes_back_meanwhile_starts_the_time_anew() -> None:
    board = board_of(1)
    begin(board, ADA, load_s=0.0)
    begin(board, BOB, load_s=0.0)
    board.handle(Returned(worker=ADA, shard_id=0, failed=False))
    assert isinstance(ask(board, BOB, 4.0), Grant)
    board.handle(Returned(worker=BOB, shard_id=0, failed=False))
    assert isinstance(ask(board, ADA, 4.0), Grant)
    assert isinstance(ask(board, BOB, 5.0), Wait)
    assert isinstance(ask(board, BOB, 9.9), Wait)
    assert isinstance(ask(board, BOB, 10.0), Dismiss)


def test_while_a_shard_may_kill_its_worker_the_others_stay_to_take_over() -> None:
    board = board_of(1)
    begin(board, ADA, load_s=0.0)
    begin(board, BOB, load_s=0.0)
    board.handle(Gone(worker=ADA, crashed=True))
    assert isinstance(ask(board, "cyd", 1.0), Grant)
    assert isinstance(ask(board, BOB, 1000.0), Wait)


def test_useful_are_those_who_hold_shards_and_one_for_each_that_nobody_holds() -> None:
    board = board_of(4)
    assert board.useful == 4
    for _ in range(2):
        ask(board, ADA, 0.0)
    ask(board, BOB, 0.0)
    assert board.useful == 3, "two at work, and one more for the last shard"
    board.handle(Sealed(worker=ADA, shard_id=0))
    assert board.useful == 3, "the other shard of the first is its own still"
    board.handle(Gone(worker=BOB, crashed=False))
    assert board.useful == 3
