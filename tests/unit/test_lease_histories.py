"""The lease board against random histories: its invariants hold whatever workers and clocks do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
from cluster.records import Ranges, count_of, offsets_of
from cluster.suspicion import Trial

LEASE_S = 10.0
WORKERS = ("ada", "bob", "cyd")
ALL: Ranges = ((0, 8),)


def ask(board: LeaseBoard, worker: str, now_s: float = 0.0) -> Instruction:
    (answer,) = board.handle(Asked(worker=worker, now_s=now_s))
    return answer


class Histories(RuleBasedStateMachine):
    """Workers that do anything, clocks that jump; ``owners`` is what the board last said."""

    board: LeaseBoard

    @initialize(total=st.integers(0, 12), sealed=st.sets(st.integers(0, 12)))
    def start(self, total: int, sealed: set[int]) -> None:
        self.sealed = sealed & set(range(total))
        self.board = LeaseBoard(
            iter(sorted(set(range(total)) - sealed)),
            total=total,
            sealed=len(self.sealed),
            lease_s=LEASE_S,
        )
        self.total = total
        self.now_s = 0.0
        self.owners: dict[int, str] = {}
        self.failures: dict[int, int] = {}
        self.trials: dict[int, Trial] = {}
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
                assert (answer.suspicion.deaths if answer.suspicion else 0) == failed
                assert not (failed and holds), "a suspect was granted beside others"
                self.owners[answer.shard_id] = worker
            case Dismiss():
                taken = len(self.sealed) + len(self.owners) == self.total
                suspect = any(self.failures.get(shard, 0) for shard in self.owners)
                idle = taken and not holds and not suspect
                assert self.drained or len(self.sealed) == self.total or idle
            case Wait():
                assert holds or len(self.sealed) + len(self.owners) == self.total

    @rule(worker=st.sampled_from(WORKERS))
    def beats(self, worker: str) -> None:
        assert self.board.handle(Beat(worker=worker, now_s=self.now_s)) == []
        self.seen_s[worker] = self.now_s

    @rule(worker=st.sampled_from(WORKERS), shard_id=st.integers(0, 12))
    def seals(self, worker: str, shard_id: int) -> None:
        assert self.board.handle(Sealed(worker=worker, shard_id=shard_id)) == []
        if self.owners.get(shard_id) == worker:
            del self.owners[shard_id]
            self.trials.pop(shard_id, None)
            self.sealed.add(shard_id)
            self.failures.pop(shard_id, None)
        assert self.board.finished == (len(self.sealed) == self.total)

    @rule(worker=st.sampled_from(WORKERS), shard_id=st.integers(0, 12), failed=st.booleans())
    def returns(self, worker: str, shard_id: int, failed: bool) -> None:
        self.board.handle(Returned(worker=worker, shard_id=shard_id, failed=failed))
        if self.owners.get(shard_id) == worker:
            self._lose(shard_id, failed=failed)

    @rule(worker=st.sampled_from(WORKERS), shard_id=st.integers(0, 12), rows=st.integers(1, 8))
    def tries(self, worker: str, shard_id: int, rows: int) -> None:
        trial = Trial(suspects=ALL, rows=((0, rows),))
        assert self.board.handle(Trying(worker=worker, shard_id=shard_id, trial=trial)) == []
        if self.owners.get(shard_id) == worker:
            self.trials[shard_id] = trial

    @rule(worker=st.sampled_from(WORKERS), shard_id=st.integers(0, 12))
    def survives(self, worker: str, shard_id: int) -> None:
        self.board.handle(Survived(worker=worker, shard_id=shard_id))
        if self.owners.get(shard_id) == worker:
            trial = self.trials.get(shard_id)
            if trial is not None and trial.rows == trial.suspects:
                self.failures.pop(shard_id, None)
            self._lose(shard_id, failed=False)

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
        self.trials.pop(shard_id, None)
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
        grant = ask(board, "eve", now_s)
        assert isinstance(grant, Grant), grant
        board.handle(Sealed(worker="eve", shard_id=grant.shard_id))
    assert board.finished
    assert ask(board, "eve", now_s) == Dismiss(worker="eve")


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=200, deadline=None)
@given(
    shards=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    killers=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 39)), max_size=4),
    ahead=st.integers(1, 4),
    max_attempts=st.integers(1, 4),
)
def test_rows_that_kill_are_found_one_by_one_and_their_neighbours_are_made(
    shards: list[int], killers: set[tuple[int, int]], ahead: int, max_attempts: int
) -> None:
    """Workers that die over certain rows, with nothing of a shard committed before its last row:
    exactly these rows are given up, after a number of deaths that halving bounds."""
    killers = {
        (shard, row) for shard, row in killers if shard < len(shards) and row < shards[shard]
    }
    board = LeaseBoard(iter(range(len(shards))), total=len(shards), lease_s=LEASE_S)
    pending = {shard: set(range(rows)) for shard, rows in enumerate(shards)}
    given_up: set[tuple[int, int]] = set()
    deaths = 0
    while not board.finished:
        board.validate()
        worker = f"worker-{deaths}"
        holding: list[Grant] = []
        while len(holding) < ahead and isinstance(answer := ask(board, worker), Grant):
            holding.append(answer)
        assert holding, "nothing is held and nothing is granted"
        for grant in holding:
            shard, suspicion = grant.shard_id, grant.suspicion
            rows = set(pending[shard])
            if suspicion is not None:
                trial = suspicion.trial(rows)
                board.handle(Trying(worker=worker, shard_id=shard, trial=trial))
                rows = offsets_of(trial.rows)
                if suspicion.convicted(trial, max_attempts):
                    assert count_of(trial.rows) == 1
                    given_up |= {(shard, row) for row in rows}
                    pending[shard] -= rows
            if {(shard, row) for row in rows & pending[shard]} & killers:
                board.handle(Gone(worker=worker, crashed=True))
                deaths += 1
                break
            pending[shard] -= rows
            told = Survived if pending[shard] else Sealed
            board.handle(told(worker=worker, shard_id=shard))
    assert given_up == killers
    halvings = max(shards).bit_length() + 1
    assert deaths <= len(killers) * (max_attempts + 1 + halvings)
