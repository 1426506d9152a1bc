"""A shard that a worker holds: its log, its rows and its bookkeeping, from lease to seal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from cluster import layout
from cluster.coordinator import Counts
from cluster.input_files import InputFiles
from cluster.lifetime import utc_now
from cluster.reader import ShardRows, read_shard
from cluster.records import Commit, Shard, count_of
from cluster.shard_log import ShardLog, ShardState
from cluster.shard_work import ShardWork
from cluster.store import Store
from conf.errors import RowRejected
from conf.schema import RunConfig
from operators.request import Request, RowDefaults, parse_row


@dataclass(slots=True, eq=False)
class HeldShard:
    """Compared by identity: the same shard held again later is another hold."""

    store: Store
    log: ShardLog
    work: ShardWork
    rows: ShardRows | None = None
    counts: Counts = field(default_factory=Counts)
    committed_at_s: float = field(default_factory=time.monotonic)
    lost: bool = False

    @property
    def shard_id(self) -> int:
        """The shard that is held."""
        return self.work.shard.shard_id

    def read(
        self,
        config: RunConfig,
        defaults: RowDefaults,
        lock: AbstractContextManager[Any],
        *,
        give_up: bool,
    ) -> Iterator[list[Request]]:
        """The requests of each pending row; rows that cannot become requests are rejected here.

        ``lock`` guards the bookkeeping, which other threads use meanwhile.
        """
        pending = self.work.unfinished()
        if not pending:
            return
        try:
            if give_up:
                raise _gave_up(config.job.max_attempts)
            self.rows = read_shard(
                self.work.shard,
                config.input.columns,
                InputFiles.of(config, self.store).open,
            )
        except RowRejected as error:
            with lock:
                for offset in pending:
                    self.work.reject(offset, None, error)
            return
        for offset in pending:
            requests = self._requests(offset, defaults, lock)
            if requests:
                yield requests

    def _requests(
        self, offset: int, defaults: RowDefaults, lock: AbstractContextManager[Any]
    ) -> list[Request]:
        assert self.rows is not None
        row_id = self.work.shard.first_row_id + offset
        try:
            requests = parse_row(self.rows.known(offset), row_id=row_id, defaults=defaults)
        except RowRejected as error:
            with lock:
                self.work.reject(offset, self.rows.label(offset), error)
            return []
        with lock:
            self.work.expect(offset, len(requests))
        return requests

    def reject(self, row_id: int, error: RowRejected) -> None:
        """Quarantine a row that failed on its way."""
        offset = self.work.offset_of(row_id)
        self.work.reject(offset, self.rows.label(offset) if self.rows else None, error)

    def name_of(self, request: Request) -> str:
        """The image's name without extension: its id and, where safe, the user's label."""
        label = self.rows.label(self.work.offset_of(request.row_id)) if self.rows else None
        safe = layout.safe_label(label)
        return f"{request.image_id}_{safe}" if safe else request.image_id

    def add(self, commit: Commit) -> None:
        """Count a commit that landed."""
        self.counts += Counts(
            rows=count_of(commit.rows),
            quarantined=count_of(commit.quarantined),
            images=commit.images,
            amount_nano=commit.amount_nano,
        )


def open_shard(
    store: Store, shard: Shard, *, worker: str, generation: int
) -> HeldShard | ShardState:
    """Open the shard's next epoch; returns its state instead when it is sealed already.

    Raises:
        LeaseLost: another worker won the epoch.
    """
    log = ShardLog.open(store, shard.shard_id, worker=worker, generation=generation, now=utc_now)
    if isinstance(log, ShardState):
        return log
    committed, quarantined = log.state.done()
    pending = set(range(shard.rows)) - committed - quarantined
    work = ShardWork(shard, epoch=log.epoch, pending=pending)
    return HeldShard(store=store, log=log, work=work)


def _gave_up(deaths: int) -> RowRejected:
    return RowRejected(
        stage="worker",
        reason="worker_died",
        message=f"the worker died {deaths} times while it held this row's shard; the rows that "
        "were not committed by then are set aside (job.max_attempts)",
    )


def counts_of(state: ShardState) -> Counts:
    """What a shard's counted commits hold."""
    return sum(
        (
            Counts(
                rows=count_of(counted.commit.rows),
                quarantined=count_of(counted.commit.quarantined) if counted.quarantine else 0,
                images=counted.commit.images,
                amount_nano=counted.commit.amount_nano,
            )
            for counted in state.commits
        ),
        Counts(),
    )
