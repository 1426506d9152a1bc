"""The lease board: random histories against its invariants, and sentences about single rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.leases import (
    Asked,
    Beat,
    Clock,
    Dismiss,
    Drain,
    Finished,
    Gone,
    Grant,
    Instruction,
    LeaseBoard,
    Returned,
    Revoke,
    Sealed,
    Wait,
)

LEASE_S = 10.0
WORKERS = ("ada", "bob", "cyd")


class Boards:
    """Makes boards and remembers them, so that each is validated when its test ends."""

    def __init__(self) -> None:
        self.made: list[LeaseBoard] = []

    def __call__(self, total: int, *, max_attempts: int = 3) -> LeaseBoard:
        board = LeaseBoard(
            iter(range(total)), total=total, lease_s=LEASE_S, max_attempts=max_attempts
        )
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
    assert [(g.worker, g.shard_id, g.attempt, g.give_up) for g in grants] == [
        ("ada", 0, 1, False),
        ("bob", 1, 1, False),
        ("cyd", 2, 1, False),
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
    assert board.handle(Sealed(worker="bob", shard_id=1)) == [Finished()]
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
    assert granted(board, "cyd") == Grant(worker="cyd", shard_id=0, attempt=2, give_up=False)
    assert ask(board, "cyd") == Wait(worker="cyd"), "a suspect is held alone"


def test_a_shard_that_failed_max_attempts_times_is_granted_to_be_given_up(boards: Boards) -> None:
    board = boards(1, max_attempts=2)
    for attempt in (1, 2):
        assert granted(board) == Grant(worker="ada", shard_id=0, attempt=attempt, give_up=False)
        board.handle(Gone(worker="ada", crashed=True))
    assert granted(board) == Grant(worker="ada", shard_id=0, attempt=3, give_up=True)
    assert board.handle(Sealed(worker="ada", shard_id=0)) == [Finished()]


def test_a_shard_returned_unharmed_comes_next_and_is_no_suspect(boards: Boards) -> None:
    board = boards(3)
    granted(board)
    board.handle(Returned(worker="ada", shard_id=0, failed=False))
    assert granted(board, "bob") == Grant(worker="bob", shard_id=0, attempt=1, give_up=False)
    assert granted(board, "bob").shard_id == 1


def test_a_worker_that_left_in_peace_makes_no_suspects(boards: Boards) -> None:
    board = boards(1)
    granted(board)
    board.handle(Gone(worker="ada", crashed=False))
    assert granted(board, "bob").attempt == 1


def test_a_clean_shard_behind_a_suspect_is_not_held_up_by_it(boards: Boards) -> None:
    board = boards(3)
    granted(board), granted(board, "bob")
    board.handle(Gone(worker="ada", crashed=True))
    board.handle(Returned(worker="bob", shard_id=1, failed=False))
    assert granted(board, "cyd").shard_id == 1
    assert granted(board, "cyd").shard_id == 2


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
    assert granted(board, "bob", LEASE_S + 1).attempt == 2


class Histories(RuleBasedStateMachine):
    """Workers that do anything, clocks that jump; ``owners`` is what the board last said."""

    board: LeaseBoard

    @initialize(
        total=st.integers(0, 12), sealed=st.sets(st.integers(0, 12)), max_attempts=st.integers(1, 3)
    )
    def start(self, total: int, sealed: set[int], max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self.sealed = sealed & set(range(total))
        self.board = LeaseBoard(
            iter(sorted(set(range(total)) - sealed)),
            total=total,
            sealed=len(self.sealed),
            lease_s=LEASE_S,
            max_attempts=max_attempts,
        )
        self.total = total
        self.now_s = 0.0
        self.owners: dict[int, str] = {}
        self.failures: dict[int, int] = {}
        self.seen_s: dict[str, float] = {}
        self.drained = False

    @rule(worker=st.sampled_from(WORKERS))
    def asks(self, worker: str) -> None:
        (answer,) = self.board.handle(Asked(worker=worker, now_s=self.now_s))
        self.seen_s[worker] = self.now_s
        holds = [s for s, owner in self.owners.items() if owner == worker]
        match answer:
            case Grant():
                assert not self.drained
                assert answer.shard_id not in self.owners, "granted twice"
                assert answer.shard_id not in self.sealed, "granted after its seal"
                failed = self.failures.get(answer.shard_id, 0)
                assert answer.attempt == failed + 1
                assert answer.give_up == (failed >= self.max_attempts)
                assert not (failed and holds), "a suspect was granted beside others"
                self.owners[answer.shard_id] = worker
            case Dismiss():
                assert self.drained or len(self.sealed) == self.total
            case Wait():
                assert holds or len(self.sealed) + len(self.owners) == self.total

    @rule(worker=st.sampled_from(WORKERS))
    def beats(self, worker: str) -> None:
        assert self.board.handle(Beat(worker=worker, now_s=self.now_s)) == []
        self.seen_s[worker] = self.now_s

    @rule(worker=st.sampled_from(WORKERS), shard_id=st.integers(0, 12))
    def seals(self, worker: str, shard_id: int) -> None:
        told = self.board.handle(Sealed(worker=worker, shard_id=shard_id))
        if self.owners.get(shard_id) == worker:
            del self.owners[shard_id]
            self.sealed.add(shard_id)
            self.failures.pop(shard_id, None)
            assert told == ([Finished()] if len(self.sealed) == self.total else [])
        else:
            assert told == []

    @rule(worker=st.sampled_from(WORKERS), shard_id=st.integers(0, 12), failed=st.booleans())
    def returns(self, worker: str, shard_id: int, failed: bool) -> None:
        self.board.handle(Returned(worker=worker, shard_id=shard_id, failed=failed))
        if self.owners.get(shard_id) == worker:
            self._lose(shard_id, failed=failed)

    @rule(worker=st.sampled_from(WORKERS), crashed=st.booleans())
    def leaves(self, worker: str, crashed: bool) -> None:
        self.board.handle(Gone(worker=worker, crashed=crashed))
        self.seen_s.pop(worker, None)
        for shard_id in [s for s, owner in self.owners.items() if owner == worker]:
            self._lose(shard_id, failed=crashed)

    @rule(jump_s=st.floats(-30, 30, allow_nan=False))
    def time_jumps(self, jump_s: float) -> None:
        self.now_s += jump_s
        for told in self.board.handle(Clock(now_s=self.now_s)):
            assert isinstance(told, Revoke)
            held = {s for s, owner in self.owners.items() if owner == told.worker}
            assert set(told.shards) == held
            for shard_id in told.shards:
                self._lose(shard_id, failed=True)

    @precondition(lambda self: len(self.sealed) > 2)
    @rule()
    def drains(self) -> None:
        self.board.handle(Drain())
        self.drained = True

    def _lose(self, shard_id: int, *, failed: bool) -> None:
        del self.owners[shard_id]
        if failed:
            self.failures[shard_id] = self.failures.get(shard_id, 0) + 1

    @invariant()
    def board_is_sound(self) -> None:
        self.board.validate()
        assert self.board.held == len(self.owners)
        assert set(self.board.silent(self.now_s)) == {
            worker for worker, seen_s in self.seen_s.items() if self.now_s > seen_s + LEASE_S
        }
        assert self.board.sealed == len(self.sealed)
        assert self.board.finished == (len(self.sealed) == self.total)

    def teardown(self) -> None:
        """Whatever happened, workers that behave well from now on get everything sealed."""
        if self.drained:
            return
        finish(self.board, self.now_s + 2 * LEASE_S)
        self.board.validate()


def finish(board: LeaseBoard, now_s: float) -> None:
    """Every worker of the past is gone; one that seals what it gets must see the end."""
    for worker in WORKERS:
        board.handle(Gone(worker=worker, crashed=True))
    for _ in range(board.total - board.sealed):
        grant = granted(board, "eve", now_s)
        board.handle(Sealed(worker="eve", shard_id=grant.shard_id))
    assert board.finished
    assert ask(board, "eve", now_s) == Dismiss(worker="eve")


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 30),
    poison=st.sets(st.integers(0, 29), max_size=4),
    ahead=st.integers(1, 4),
    max_attempts=st.integers(1, 3),
)
def test_poison_shards_are_given_up_and_cost_nobody_else_an_attempt_more_than_once(
    total: int, poison: set[int], ahead: int, max_attempts: int
) -> None:
    """A poison shard kills whoever works on it; its neighbours are suspects at most once."""
    board = LeaseBoard(iter(range(total)), total=total, lease_s=LEASE_S, max_attempts=max_attempts)
    deaths = 0
    given_up: set[int] = set()
    holding: list[Grant] = []
    while not board.finished:
        answer = ask(board, f"worker-{deaths}")
        if isinstance(answer, Grant):
            holding.append(answer)
            if len(holding) < ahead:
                continue
        assert holding, "nothing is held and nothing is granted"
        grant = holding.pop(0)
        if grant.shard_id in poison and not grant.give_up:
            board.handle(Gone(worker=grant.worker, crashed=True))
            holding.clear()
            deaths += 1
        else:
            board.handle(Sealed(worker=grant.worker, shard_id=grant.shard_id))
            given_up |= {grant.shard_id} if grant.give_up else set()
        board.validate()
    killers = {p for p in poison if p < total}
    assert killers <= given_up
    if max_attempts > 1:
        assert given_up == killers
    assert deaths <= len(killers) * max_attempts
