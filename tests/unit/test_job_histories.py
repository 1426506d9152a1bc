"""Whole jobs as random histories: the real lease board and shard logs, everybody unreliable.

Workers die, stall and come back as zombies, lose replies; clocks jump; coordinators restart and
know nothing. At the end of every history an honest worker finishes the job: every row counts once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shard_records import commit_of, now

from cluster.leases import (
    Asked,
    Beat,
    Clock,
    Gone,
    Grant,
    LeaseBoard,
    Returned,
    Revoke,
    Sealed,
    Survived,
    Trying,
)
from cluster.records import offsets_of
from cluster.shard_log import ShardLog, ShardState, read_shard_state
from cluster.store import Store
from conf.errors import CommitUnknown, LeaseLost

SHARDS, ROWS = 3, 4
LEASE_S = 10.0
NAMES = ("ada", "bob", "cyd")
NEVER, AT_THE_END = 10**6, 2


@dataclass
class Work:
    """A shard in a worker's hands. ``partial``: only some of its pending rows are tried."""

    log: ShardLog
    pending: set[int]
    partial: bool


@dataclass
class Hand:
    """A worker as itself: it may believe in leases that it lost long ago."""

    name: str
    works: dict[int, Work] = field(default_factory=dict)


class Jobs(RuleBasedStateMachine):
    """One job; ``hands`` are the workers. Until the end no row is convicted, since workers die
    without a cause."""

    @initialize(poison=st.none() | st.tuples(st.integers(0, SHARDS - 1), st.integers(0, ROWS - 1)))
    def start(self, poison: tuple[int, int] | None) -> None:
        self.store = Store(f"memory://histories-{secrets.token_hex(4)}")
        self.poison = poison
        self.max_attempts = NEVER
        self.now_s = 0.0
        self.lives = 0
        self.hands = {name: Hand(name) for name in NAMES}
        self.zombies: list[Hand] = []
        self.sealed: dict[int, tuple[set[int], set[int]]] = {}
        self._new_board()

    def _new_board(self) -> None:
        self.board = LeaseBoard(iter(range(SHARDS)), total=SHARDS, lease_s=LEASE_S)

    @rule(name=st.sampled_from(NAMES))
    def asks_and_opens(self, name: str) -> None:
        self._ask(self.hands[name])

    def _ask(self, hand: Hand) -> bool:
        (answer,) = self.board.handle(Asked(worker=hand.name, now_s=self.now_s))
        if not isinstance(answer, Grant):
            return False
        shard_id, suspicion = answer.shard_id, answer.suspicion
        try:
            log = ShardLog.open(self.store, shard_id, worker=hand.name, generation=0, now=now)
        except LeaseLost:
            self.board.handle(Returned(worker=hand.name, shard_id=shard_id, failed=False))
            return True
        if isinstance(log, ShardState):
            self.board.handle(Sealed(worker=hand.name, shard_id=shard_id))
            return True
        pending = set(range(ROWS)).difference(*log.state.done())
        tried = pending
        if suspicion and pending:
            trial = suspicion.trial(pending)
            tried = offsets_of(trial.rows)
            self.board.handle(Trying(worker=hand.name, shard_id=shard_id, trial=trial))
            if suspicion.convicted(trial, self.max_attempts):
                log.commit(commit_of(log, (), tried))
                pending, tried = pending - tried, set()
        hand.works[shard_id] = Work(log, set(tried), partial=tried != pending)
        return True

    @rule(name=st.sampled_from(NAMES), rows=st.integers(1, ROWS), reply_lost=st.booleans())
    def works(self, name: str, rows: int, reply_lost: bool) -> None:
        self._work(self.hands[name], rows, reply_lost=reply_lost)

    @precondition(lambda self: self.zombies)
    @rule(data=st.data(), rows=st.integers(1, ROWS))
    def a_zombie_works(self, data: st.DataObject, rows: int) -> None:
        self._work(data.draw(st.sampled_from(self.zombies)), rows, reply_lost=False)

    def _work(self, hand: Hand, rows: int, *, reply_lost: bool) -> None:
        """Commit some rows of a shard, and seal it with the last; a poison row kills the worker."""
        if not hand.works:
            return
        shard_id, work = next(iter(hand.works.items()))
        taken = set(sorted(work.pending)[:rows])
        if self.poison is not None and self.poison[0] == shard_id and self.poison[1] in taken:
            self._die(hand)
            return
        try:
            if taken:
                work.log.commit(commit_of(work.log, taken))
                if reply_lost:
                    raise CommitUnknown("it landed")
                work.pending -= taken
            if work.pending:
                return
            if not work.partial:
                work.log.seal(now=now)
        except (LeaseLost, CommitUnknown):
            self._drop(hand, shard_id, Returned(worker=hand.name, shard_id=shard_id, failed=False))
            return
        told = Survived if work.partial else Sealed
        self._drop(hand, shard_id, told(worker=hand.name, shard_id=shard_id))

    def _drop(self, hand: Hand, shard_id: int, event: Returned | Survived | Sealed) -> None:
        del hand.works[shard_id]
        if hand not in self.zombies:
            self.board.handle(event)

    @rule(name=st.sampled_from(NAMES))
    def dies(self, name: str) -> None:
        self._die(self.hands[name])

    def _die(self, hand: Hand) -> None:
        hand.works.clear()
        if hand in self.zombies:
            return
        self.board.handle(Gone(worker=hand.name, crashed=True))

    @rule(name=st.sampled_from(NAMES))
    def is_taken_for_dead_and_lives(self, name: str) -> None:
        """Its successor gets another name; it goes on with what it believes to hold."""
        self.board.handle(Gone(worker=self.hands[name].name, crashed=True))
        self.zombies.append(self.hands[name])
        self.lives += 1
        self.hands[name] = Hand(f"{name}-{self.lives}")

    @rule(name=st.sampled_from(NAMES))
    def beats(self, name: str) -> None:
        self.board.handle(Beat(worker=self.hands[name].name, now_s=self.now_s))

    @rule(jump_s=st.floats(-30, 30, allow_nan=False))
    def time_jumps(self, jump_s: float) -> None:
        """Whoever loses a lease hears of it late: it stays in its hands until it commits."""
        self.now_s += jump_s
        for told in self.board.handle(Clock(now_s=self.now_s)):
            assert isinstance(told, Revoke)
            for hand in self.hands.values():
                if hand.name == told.worker:
                    self.is_taken_for_dead_and_lives(hand.name.partition("-")[0])
                    break

    @rule()
    def the_coordinator_restarts(self) -> None:
        """The new one knows nothing; the workers of the old one may go on for a while."""
        for name, hand in list(self.hands.items()):
            self.zombies.append(hand)
            self.lives += 1
            self.hands[name] = Hand(f"{name}-{self.lives}")
        self._new_board()

    @invariant()
    def nothing_counts_twice_and_what_is_sealed_stays(self) -> None:
        self.board.validate()
        for shard_id in range(SHARDS):
            state = read_shard_state(self.store, shard_id)
            done = state.done()
            if shard_id in self.sealed:
                assert done == self.sealed[shard_id]
            if state.sealed:
                assert done[0] | done[1] == set(range(ROWS)), "sealed although rows are pending"
                self.sealed[shard_id] = done

    def teardown(self) -> None:
        """Whatever happened, workers without bad luck finish, and only the poison row is lost."""
        if not hasattr(self, "board"):
            return
        self.the_coordinator_restarts()
        self.max_attempts = AT_THE_END
        hand = Hand("eve")
        for _ in range(200):
            if self.board.finished:
                break
            if not hand.works:
                self._ask(hand)
            self._work(hand, ROWS, reply_lost=False)
        assert self.board.finished, "two hundred steps were not enough"
        self.nothing_counts_twice_and_what_is_sealed_stays()
        lost = {(shard, row) for shard, done in self.sealed.items() for row in done[1]}
        assert lost == ({self.poison} if self.poison else set())


TestJobs = Jobs.TestCase
# no shrinking: a history of this length would take minutes, and hypothesis prints it whole
TestJobs.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, phases=[Phase.generate]
)
