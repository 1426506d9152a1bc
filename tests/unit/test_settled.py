"""What a checkpoint settles: who is left to do, and sums that are those of the records."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_records import STAMP, commit_of, now, seal_of, try_open

from cluster import checkpoint, layout
from cluster.actors import CoordinatorActor
from cluster.backlog import backlog
from cluster.checkpoint import add_checkpoint, numbers
from cluster.coordinator import Coordinator, Counts
from cluster.job_log import open_retry
from cluster.leases import Grant
from cluster.plan_file import InputFile, PlanReader, write_plan
from cluster.records import Shard
from cluster.sealed_shard import SealedShard
from cluster.settled import Settled
from cluster.shard_log import ShardState
from cluster.store import Entry, Store
from cluster.totals import Totals, fold, sealed_shard
from conf.errors import ImageMillError, StoreRefused, StoreUnavailable
from tests.small_jobs import prepare_small_job
from tests.stores import ONCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), ONCE)


def missing(store: Store, shard_ids: Sequence[int]) -> list[int]:
    return list(Settled.of(store).missing(shard_ids))


@settings(deadline=None, max_examples=40)
@given(sealed=st.sets(st.integers(0, 40)), ids=st.sets(st.integers(0, 40)), rows=st.integers(1, 50))
def test_exactly_the_shards_that_are_in_no_checkpoint_are_missing_in_order(
    tmp_path_factory: pytest.TempPathFactory, sealed: set[int], ids: set[int], rows: int
) -> None:
    store = Store(str(tmp_path_factory.mktemp("missing")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "GROUP_ROWS", rows)
        if sealed:
            add_checkpoint(store, [seal_of(i) for i in sealed])
    assert missing(store, sorted(ids)) == sorted(ids - sealed)


def test_a_retry_unsettles_the_shards_that_it_names_until_they_are_sealed_anew(
    store: Store,
) -> None:
    add_checkpoint(store, [seal_of(i, quarantined=i % 2) for i in range(4)])
    open_retry(store, (1, 3), after=0)
    assert missing(store, range(5)) == [1, 3, 4]
    add_checkpoint(store, [seal_of(3, generation=1, epoch=4)])
    assert missing(store, range(5)) == [1, 4]
    open_retry(store, (3,), after=1)
    assert missing(store, range(5)) == [1, 3, 4]


def test_only_shards_that_may_hold_quarantined_rows_are_asked_for_them(store: Store) -> None:
    add_checkpoint(store, [seal_of(i, quarantined=int(i in (1, 4))) for i in (0, 1, 3, 4)])
    assert list(Settled.of(store).maybe_quarantined(range(6))) == [1, 2, 4, 5]


def test_only_shards_where_something_failed_may_be_littered(store: Store) -> None:
    seals = [seal_of(0), seal_of(1, quarantined=1), seal_of(3, epoch=4)]  # 3: attempt 3
    add_checkpoint(store, seals)
    assert list(Settled.of(store).maybe_littered(range(5))) == [1, 2, 3, 4]


@pytest.mark.parametrize("failure", [StoreUnavailable, StoreRefused])
@pytest.mark.parametrize("folder", [layout.CHECKPOINTS, "retries/"])
def test_a_store_that_does_not_answer_or_refuses_settles_nothing_and_it_is_said_why(
    store: Store,
    caplog: pytest.LogCaptureFixture,
    failure: type[ImageMillError],
    folder: str,
) -> None:
    class Down(Store):
        def listing(self, prefix: str) -> list[Entry]:
            if prefix == folder:
                raise failure("no credentials here")
            return super().listing(prefix)

    add_checkpoint(store, [seal_of(0)])
    assert missing(Down(store.url), range(2)) == [0, 1]
    assert "going on without a checkpoint: no credentials here" in caplog.text


def test_a_backlog_counts_what_is_sealed_and_leaves_the_rest(store: Store) -> None:
    add_checkpoint(store, [seal_of(i, quarantined=1, workers=("a", "b")) for i in (0, 2)])
    left = backlog(Settled.of(store), total=4, shards=None)
    assert (left.total, left.sealed, list(left.pending)) == (4, 2, [1, 3])
    assert left.counts == Counts(rows=22, quarantined=2, images=42, amount_nano=32)
    some = backlog(Settled.of(store), total=4, shards=(1, 2))
    assert (some.total, some.sealed, list(some.pending)) == (2, 1, [1])
    assert some.counts == Counts(rows=12, quarantined=1, images=22, amount_nano=18)


def test_a_coordinator_with_a_backlog_hands_out_the_rest_and_shows_the_whole(store: Store) -> None:
    add_checkpoint(store, [seal_of(i) for i in (0, 2)])
    left = backlog(Settled.of(store), total=4, shards=None)
    coordinator = Coordinator(
        left.pending,
        total=left.total,
        sealed=left.sealed,
        counts=left.counts,
        lease_s=60,
    )
    shown = coordinator.snapshot()
    assert (shown.shards, shown.sealed, shown.counts, shown.finished) == (4, 2, left.counts, False)
    for shard_id in (1, 3):
        grant = coordinator.acquire("ada")
        assert isinstance(grant, Grant)
        assert grant.shard_id == shard_id
        coordinator.sealed("ada", seal_of(shard_id))
    assert coordinator.snapshot().finished


def test_a_run_whose_shards_are_all_settled_is_finished_at_once(store: Store) -> None:
    add_checkpoint(store, [seal_of(i) for i in range(2)])
    left = backlog(Settled.of(store), total=2, shards=None)
    coordinator = Coordinator(left.pending, total=2, sealed=left.sealed, lease_s=60)
    assert coordinator.snapshot().finished


def test_the_coordinators_process_starts_from_a_checkpoint_and_writes_the_next(
    tmp_path: Path,
) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "x"}] * 12)
    add_checkpoint(small.store, [seal_of(1)])
    actor = CoordinatorActor(small.config.to_mapping(), total=3, shards=None, lease_s=60)
    for shard_id in (0, 2):
        grant = actor.acquire("ada")
        assert isinstance(grant, Grant)
        assert grant.shard_id == shard_id
        actor.sealed("ada", seal_of(shard_id))
    assert (actor.snapshot().finished, actor.snapshot().counts.rows) == (True, 33)
    actor.close()
    assert missing(small.store, range(4)) == [3]


ROWS = 6
SHARDS = 4
WORKERS = ("ada", "bob")
Work = tuple[int, list[tuple[int, bool]], bool, str]
WORK = st.tuples(
    st.integers(0, SHARDS - 1),
    st.lists(st.tuples(st.integers(0, ROWS - 1), st.booleans()), max_size=3),
    st.booleans(),
    st.sampled_from(WORKERS),
)
RETRY = st.sets(st.integers(0, SHARDS - 1), min_size=1)
CHECKPOINT = st.none()


@dataclass
class Output:
    """An output in the making: shards that are opened, committed, sealed, retried, checkpointed."""

    store: Store
    generation: int = 0
    released: dict[int, int] = field(default_factory=dict)
    fresh: dict[int, SealedShard] = field(default_factory=dict)
    lifetime_ns: int = 0

    def __post_init__(self) -> None:
        shards = [
            Shard(shard_id=i, file="f", first_row=i * ROWS, rows=ROWS, first_row_id=i * ROWS)
            for i in range(SHARDS)
        ]
        file = InputFile(
            index=0, file="f", source="f", bytes=1, fingerprint="x", rows=SHARDS * ROWS
        )
        write_plan(self.store, [file], shards)

    def work(self, work: Work) -> None:
        """Open a shard, commit some of its pending rows, perhaps seal it."""
        shard_id, rows, seal, worker = work
        generation = self.released.get(shard_id, 0)
        log = try_open(self.store, shard_id, worker=worker, generation=generation)
        if isinstance(log, ShardState):
            self.fresh[shard_id] = sealed_shard(log)
            return
        committed, quarantined = log.state.done()
        for offset, rejected in rows:
            if offset in committed | quarantined:
                continue
            quarantined |= {offset}
            self.lifetime_ns += 1
            commit = commit_of(log, *(((), [offset]) if rejected else ([offset],)))
            stamp = replace(STAMP, worker=worker, lifetime_ns=self.lifetime_ns)
            numbers = {"images": 1, "image_bytes": 9 + offset, "device_ns": 3, "amount_nano": 2}
            log.commit(replace(commit, stamp=stamp, **({} if rejected else numbers)))
        if seal:
            self.fresh[shard_id] = sealed_shard(log.seal(now=now))

    def retry(self, shards: set[int]) -> None:
        """Release the quarantined rows of these shards."""
        self.generation += 1
        open_retry(self.store, tuple(sorted(shards)), after=self.generation - 1)
        self.released |= dict.fromkeys(shards, self.generation)

    def checkpoint(self) -> None:
        """Write down what was sealed since the last one."""
        if self.fresh:
            add_checkpoint(self.store, list(self.fresh.values()))
            self.fresh.clear()

    def sums(self) -> Totals:
        """What counts, as anybody finds it."""
        return fold(self.store, PlanReader(self.store))

    def sums_without_checkpoint(self) -> Totals:
        """What the records alone say."""
        for number in numbers(self.store):
            self.store.delete(layout.checkpoint(number))
        return self.sums()


@pytest.fixture(scope="module")
def output() -> Iterator[Callable[[], Output]]:
    """Makes outputs in memory, which are gone at the end."""
    root = f"/settled-{secrets.token_hex(4)}"
    yield lambda: Output(Store(f"memory:/{root}/{secrets.token_hex(4)}", ONCE))
    fsspec.filesystem("memory").rm(root, recursive=True)


@settings(deadline=None, max_examples=60)
@given(history=st.lists(st.one_of(WORK, WORK, RETRY, CHECKPOINT), max_size=25))
def test_the_sums_are_those_of_the_records_whatever_the_checkpoint_holds(
    output: Callable[[], Output], history: list[Work | set[int] | None]
) -> None:
    made = output()
    for step in history:
        if step is None:
            made.checkpoint()
        elif isinstance(step, set):
            made.retry(step)
        else:
            made.work(step)
    assert made.sums() == made.sums_without_checkpoint()


def test_the_sums_need_no_record_of_a_shard_that_a_checkpoint_settles(
    output: Callable[[], Output],
) -> None:
    made = output()
    for shard_id in range(SHARDS - 1):
        made.work((shard_id, [(0, False), (1, True)], shard_id != 1, "ada"))
    made.checkpoint()
    expected = made.sums()
    assert (expected.sealed, expected.committed, expected.quarantined) == (2, 3, 3)
    for shard_id in (0, 2):
        for folder in (layout.openings(shard_id), layout.commits(shard_id)):
            for entry in made.store.listing(folder):
                made.store.delete(entry.key)
    assert made.sums() == expected
    assert made.sums_without_checkpoint().sealed == 0


def test_a_shard_that_nobody_opened_costs_no_request(output: Callable[[], Output]) -> None:
    made = output()
    asked: list[str] = []

    class Counting(Store):
        def listing(self, prefix: str) -> list[Entry]:
            asked.append(prefix)
            return super().listing(prefix)

    made.work((2, [(0, False)], False, "ada"))
    fold(Counting(made.store.url), PlanReader(made.store))
    assert [prefix for prefix in asked if prefix.startswith(("leases/", "commits/"))] == [
        layout.openings(2),
        layout.commits(2),
    ]
