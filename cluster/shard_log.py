"""The commit protocol of one shard: open an epoch, commit, seal, and read what counts.

The rule (design, "Objects and the commit protocol"): readers take the commits that the newest
opening record lists, plus that epoch's own commits. Opening is a put-if-absent of the next epoch's
key, so exactly one opener wins it and everybody else learns that it lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cluster import layout
from cluster.records import (
    Accepted,
    Commit,
    Opening,
    commit_from_json,
    offsets_of,
    opening_from_json,
    to_json,
)
from cluster.store import Store
from conf.errors import CommitConflict, CorruptOutput, LeaseLost


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedCommit:
    """A commit that counts now, and whether its quarantined rows still do."""

    key: str
    commit: Commit
    quarantine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """What counts of a shard. ``epoch`` 0: nobody ever opened it. ``attempt``: how many openings
    started work on it; seals are openings that do not."""

    shard_id: int
    epoch: int
    attempt: int
    sealed: bool
    generation: int
    commits: tuple[CountedCommit, ...]

    def done(self) -> tuple[set[int], set[int]]:
        """Offsets of (committed, quarantined) rows.

        Raises:
            CorruptOutput: a row counts twice, which the protocol excludes.
        """
        committed: set[int] = set()
        quarantined: set[int] = set()
        for counted in self.commits:
            rows = offsets_of(counted.commit.rows)
            rejected = offsets_of(counted.commit.quarantined) if counted.quarantine else set()
            if (rows | rejected) & (committed | quarantined) or rows & rejected:
                raise CorruptOutput(f"{counted.key} names rows that another commit counts already")
            committed |= rows
            quarantined |= rejected
        return committed, quarantined


def read_shard_state(store: Store, shard_id: int) -> ShardState:
    """Fold a shard's records into what counts. One listing of openings and one of commits."""
    openings = store.listing(layout.openings(shard_id))
    if not openings:
        return ShardState(
            shard_id=shard_id, epoch=0, attempt=0, sealed=False, generation=0, commits=()
        )
    newest = _read_opening(store, openings[-1].key)
    accepted = list(newest.accepted)
    if not newest.sealed:
        accepted += [
            Accepted(key=entry.key, quarantine=True)
            for entry in store.listing(layout.commits(shard_id))
            if layout.epoch_of(entry.key) == newest.epoch
        ]
    return ShardState(
        shard_id=shard_id,
        epoch=newest.epoch,
        attempt=newest.attempt,
        sealed=newest.sealed,
        generation=newest.generation,
        commits=tuple(
            CountedCommit(
                key=item.key, commit=_read_commit(store, item.key), quarantine=item.quarantine
            )
            for item in accepted
        ),
    )


def _read_opening(store: Store, key: str) -> Opening:
    data = store.get(key)
    if data is None:
        raise CorruptOutput(f"{key} was listed but cannot be read")
    return opening_from_json(data, key)


def _read_commit(store: Store, key: str) -> Commit:
    data = store.get(key)
    if data is None:
        raise CorruptOutput(f"{key} is listed by an opening record but does not exist")
    return commit_from_json(data, key)


class ShardLog:
    """One worker's hold on one epoch of one shard. Used by one thread at a time.

    Invariant: after ``open``, every ``commit`` lands under this epoch's keys only; once any call
    raised ``LeaseLost``, whatever else this object writes does not count.
    """

    def __init__(self, store: Store, *, state: ShardState, opening: Opening) -> None:
        self._store = store
        self._opening = opening
        self._own: list[CountedCommit] = []
        self.state = state
        self._seq = 0

    @classmethod
    def open(
        cls, store: Store, shard_id: int, *, worker: str, generation: int, now: Callable[[], str]
    ) -> ShardLog | ShardState:
        """Open the next epoch, or return the state when the shard is sealed for ``generation``.

        In a later generation than the seal's, quarantined rows are released and become pending.

        Raises:
            LeaseLost: another opener won this epoch, or a later generation has begun.
        """
        state = read_shard_state(store, shard_id)
        if state.sealed and state.generation >= generation:
            return state
        if state.generation > generation:
            raise LeaseLost(f"shard {shard_id}: a retry has opened it since, this is an older run")
        release = state.generation < generation
        commits = tuple(
            CountedCommit(key=c.key, commit=c.commit, quarantine=c.quarantine and not release)
            for c in state.commits
        )
        opening = Opening(
            shard_id=shard_id,
            epoch=state.epoch + 1,
            attempt=state.attempt + 1,
            worker=worker,
            nonce=secrets.token_hex(8),
            opened_at=now(),
            accepted=tuple(Accepted(key=c.key, quarantine=c.quarantine) for c in commits),
            sealed=False,
            generation=generation,
        )
        _put_opening(store, opening)
        fresh = ShardState(
            shard_id=shard_id,
            epoch=opening.epoch,
            attempt=opening.attempt,
            sealed=False,
            generation=generation,
            commits=commits,
        )
        return cls(store, state=fresh, opening=opening)

    @property
    def epoch(self) -> int:
        """The epoch that this log writes under."""
        return self._opening.epoch

    @property
    def attempt(self) -> int:
        """The number of this attempt at the shard, from 1."""
        return self._opening.attempt

    @property
    def shard_id(self) -> int:
        """The shard that this log is of."""
        return self._opening.shard_id

    @property
    def next_seq(self) -> int:
        """The sequence number of the next commit."""
        return self._seq

    def commit(self, commit: Commit) -> None:
        """Write the commit record: the moment in which its rows become done.

        Raises:
            LeaseLost: the key holds another writer's record.
            CommitUnknown: it may have landed; the caller must not seal or reuse the number.
        """
        key = layout.commit(commit.shard_id, self.epoch, self._seq)
        try:
            self._store.put_if_absent(key, to_json(commit))
        except CommitConflict as error:
            raise LeaseLost(f"{key} was written by somebody else") from error
        self._own.append(CountedCommit(key=key, commit=commit, quarantine=True))
        self._seq += 1

    def seal(self, *, now: Callable[[], str]) -> ShardState:
        """Close the shard: one more opening record that lists everything and starts no work.

        Returns what counts from now on: the state that any reader finds.

        Raises:
            LeaseLost: another epoch was opened meanwhile; this one's late commits do not count.
        """
        own = tuple(Accepted(key=item.key, quarantine=True) for item in self._own)
        seal = Opening(
            shard_id=self._opening.shard_id,
            epoch=self.epoch + 1,
            attempt=self._opening.attempt,
            worker=self._opening.worker,
            nonce=secrets.token_hex(8),
            opened_at=now(),
            accepted=self._opening.accepted + own,
            sealed=True,
            generation=self._opening.generation,
        )
        _put_opening(self._store, seal)
        return ShardState(
            shard_id=seal.shard_id,
            epoch=seal.epoch,
            attempt=seal.attempt,
            sealed=True,
            generation=seal.generation,
            commits=(*self.state.commits, *self._own),
        )


def _put_opening(store: Store, opening: Opening) -> None:
    key = layout.opening(opening.shard_id, opening.epoch)
    try:
        store.put_if_absent(key, to_json(opening))
    except CommitConflict as error:
        raise LeaseLost(
            f"shard {opening.shard_id}: epoch {opening.epoch} was opened by another"
        ) from error
