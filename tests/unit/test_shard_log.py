"""The commit protocol of one shard, over a local folder and over memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from shard_records import commit_of, now, opened, try_open

from cluster import layout
from cluster.records import opening_from_json, to_json
from cluster.shard_log import ShardLog, ShardState, read_shard_state
from cluster.store import Store
from conf.errors import CommitUnknown, CorruptOutput, LeaseLost, StoreUnavailable
from tests.stores import ONCE


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path)
        return
    root = f"/log-{secrets.token_hex(4)}"
    yield f"memory:/{root}"
    fs = fsspec.filesystem("memory")
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture
def store(url: str) -> Store:
    return Store(url, ONCE)


def done(store: Store) -> tuple[set[int], set[int]]:
    return read_shard_state(store, 0).done()


def test_a_shard_that_nobody_opened_holds_nothing(store: Store) -> None:
    state = read_shard_state(store, 0)
    assert state == ShardState(
        shard_id=0, epoch=0, attempt=0, sealed=False, generation=0, commits=()
    )
    assert state.done() == (set(), set())


def test_commits_count_at_once_and_stay_counted_for_the_next_epoch(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, [0, 1]))
    assert done(store) == ({0, 1}, set())
    log.commit(commit_of(log, [3], [2]))
    assert done(store) == ({0, 1, 3}, {2})
    later = opened(store)
    assert later.epoch == 2
    assert later.state.done() == done(store) == ({0, 1, 3}, {2})


def test_of_two_openers_one_wins_and_the_other_learns_that_it_lost(store: Store, url: str) -> None:
    """Both read epoch 0; the second opens within the first one's write."""

    class Overtaken(Store):
        def put_if_absent(self, key: str, data: bytes) -> None:
            opened(store, worker="fast")
            super().put_if_absent(key, data)

    with pytest.raises(LeaseLost, match="shard 0: epoch 1 was opened by another"):
        opened(Overtaken(url, ONCE), worker="slow")
    (entry,) = store.listing(layout.openings(0))
    assert opening_from_json(store.get(entry.key) or b"", entry.key).worker == "fast"


def test_what_a_zombie_commits_after_the_next_opening_does_not_count(store: Store) -> None:
    zombie = opened(store)
    zombie.commit(commit_of(zombie, [0]))
    heir = opened(store)
    zombie.commit(commit_of(zombie, [1, 2]))
    assert done(store) == ({0}, set())
    heir.commit(commit_of(heir, [1]))
    assert done(store) == ({0, 1}, set())
    third = opened(store)
    assert third.state.done() == ({0, 1}, set())


def test_a_zombie_cannot_seal_once_another_epoch_is_open(store: Store) -> None:
    zombie = opened(store)
    heir = opened(store)
    with pytest.raises(LeaseLost, match="shard 0: epoch 2 was opened by another"):
        zombie.seal(now=now)
    heir.seal(now=now)
    assert read_shard_state(store, 0).sealed


def test_a_seal_fences_the_commits_of_everybody_else(store: Store) -> None:
    zombie = opened(store)
    heir = opened(store)
    heir.commit(commit_of(heir, [0, 1]))
    heir.seal(now=now)
    zombie.commit(commit_of(zombie, [0, 1]))
    heir.commit(commit_of(heir, [2]))
    assert done(store) == ({0, 1}, set())


def test_a_sealed_shard_is_not_opened_again_in_its_generation(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, [0], [1]))
    log.seal(now=now)
    before = store.listing(layout.openings(0))
    state = try_open(store)
    assert isinstance(state, ShardState)
    assert (state.sealed, state.epoch, state.done()) == (True, 2, ({0}, {1}))
    assert store.listing(layout.openings(0)) == before


def test_a_retry_releases_the_quarantined_rows_and_only_those(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, [0, 2], [1]))
    log.commit(commit_of(log, [], [3]))
    log.seal(now=now)
    again = opened(store, generation=1)
    assert again.state.done() == done(store) == ({0, 2}, set())
    again.commit(commit_of(again, [1], [3]))
    again.seal(now=now)
    assert done(store) == ({0, 1, 2}, {3})
    assert isinstance(try_open(store, generation=0), ShardState)
    assert isinstance(try_open(store, generation=1), ShardState)


def test_a_retry_that_was_interrupted_keeps_what_it_quarantined_itself(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, [], [0, 1]))
    log.seal(now=now)
    first = opened(store, generation=1)
    first.commit(commit_of(first, [], [0]))
    second = opened(store, generation=1)
    assert second.state.done() == (set(), {0})


def test_attempts_count_the_openings_that_start_work_and_not_the_seals(store: Store) -> None:
    first = opened(store)
    assert (first.attempt, read_shard_state(store, 0).attempt) == (1, 1)
    second = opened(store)
    second.commit(commit_of(second, [0], [1]))
    second.seal(now=now)
    state = read_shard_state(store, 0)
    assert (state.epoch, state.attempt, state.commits[0].commit.attempt) == (3, 2, 2)
    again = opened(store, generation=1)
    assert (again.epoch, again.attempt) == (4, 3)
    again.seal(now=now)
    assert read_shard_state(store, 0).attempt == 3


class Forgetful(Store):
    """Writes, then says that nobody knows whether it did."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        super().put_if_absent(key, data)
        if key.startswith("commits/"):
            raise CommitUnknown(f"{key}: the write may have landed")


def test_commit_that_landed_but_was_reported_failed_is_not_committed_twice(
    store: Store, url: str
) -> None:
    log = opened(Forgetful(url, ONCE))
    with pytest.raises(CommitUnknown):
        log.commit(commit_of(log, [0, 1]))
    heir = opened(store)
    assert heir.state.done() == ({0, 1}, set()), "the heir sees it and has nothing to do again"
    heir.seal(now=now)
    assert done(store) == ({0, 1}, set())


def test_a_commit_that_was_not_seen_to_land_may_be_written_again_under_its_number(
    store: Store, url: str
) -> None:
    class Down(Store):
        down = True

        def put_if_absent(self, key: str, data: bytes) -> None:
            if self.down and key.startswith("commits/"):
                raise StoreUnavailable("no answer")
            super().put_if_absent(key, data)

    flaky = Down(url, ONCE)
    log = opened(flaky)
    with pytest.raises(StoreUnavailable):
        log.commit(commit_of(log, [0]))
    assert log.next_seq == 0
    flaky.down = False
    log.commit(commit_of(log, [0]))
    assert done(store) == ({0}, set())


def test_a_commit_whose_key_holds_another_record_is_a_lost_lease(store: Store) -> None:
    log = opened(store)
    store.put_if_absent(layout.commit(0, 1, 0), to_json(commit_of(log, [7])))
    with pytest.raises(LeaseLost, match="was written by somebody else"):
        log.commit(commit_of(log, [0]))


def test_shards_do_not_see_each_other(store: Store) -> None:
    one, two = opened(store, 0), opened(store, 1)
    one.commit(commit_of(one, [0]))
    two.commit(commit_of(two, [5]))
    assert read_shard_state(store, 0).done() == ({0}, set())
    assert read_shard_state(store, 1).done() == ({5}, set())


def test_the_records_of_a_thousand_shards_share_a_folder(store: Store) -> None:
    for shard_id in (999, 1000, 1999):
        log = opened(store, shard_id)
        log.commit(commit_of(log, [0]))
    assert store.folders("leases/") == store.folders("commits/") == ["00000", "00001"]
    assert store.folders("leases/00001/") == ["00001000", "00001999"]
    assert store.exists("commits/00001/00001999/000001-000000.json")


def test_an_accepted_commit_that_vanished_is_corrupt_output(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, [0]))
    log.seal(now=now)
    store.delete(layout.commit(0, 1, 0))
    with pytest.raises(
        CorruptOutput, match=r"^commits/00000/00000000/000001-000000\.json is listed by"
    ):
        read_shard_state(store, 0)


def test_a_row_that_two_counted_commits_name_is_corrupt_output(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, [0, 1]))
    log.commit(commit_of(log, [1, 2]))
    with pytest.raises(CorruptOutput, match="names rows that another commit counts already"):
        done(store)


def test_openings_of_one_worker_differ_so_that_it_cannot_mistake_anothers_for_its_own(
    store: Store,
) -> None:
    first, second = opened(store), opened(store)
    assert isinstance(first, ShardLog)
    assert first.epoch != second.epoch
    keys = [entry.key for entry in store.listing(layout.openings(0))]
    nonces = {opening_from_json(store.get(key) or b"", key).nonce for key in keys}
    assert len(nonces) == 2


def test_an_older_run_cannot_open_what_a_retry_has_opened(store: Store) -> None:
    log = opened(store)
    log.commit(commit_of(log, {0}, {1}))
    log.seal(now=now)
    opened(store, generation=1)
    with pytest.raises(LeaseLost, match="a retry has opened it since, this is an older run"):
        try_open(store, generation=0)
