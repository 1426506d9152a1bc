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
from cluster.records import Commit, Shard, count_of, offsets_of
from cluster.shard_log import ShardLog, ShardState
from cluster.shard_work import ShardWork
from cluster.store import Store
from cluster.suspicion import Suspicion, Trial
from conf.errors import RowRejected
from conf.schema import RunConfig
from operators.request import Request, RowDefaults, parse_row


@dataclass(slots=True, eq=False)
class HeldShard:
    """Compared by identity: the same shard held again later is another hold.

    ``trial``: which rows of a suspect shard this hold is for; ``work`` knows no others.
    """

    store: Store
    log: ShardLog
    work: ShardWork
    trial: Trial | None = None
    whole: bool = True
    rows: ShardRows | None = None
    counts: Counts = field(default_factory=Counts)
    committed_at_s: float = field(default_factory=time.monotonic)
    lost: bool = False

    @property
    def shard_id(self) -> int:
        """The shard that is held."""
        return self.work.shard.shard_id

    def load(self, config: RunConfig) -> None:
        """Read the shard's rows.

        Raises:
            RowRejected: they cannot be read.
        """
        self.rows = read_shard(
            self.work.shard,
            config.input.columns,
            InputFiles.of(config, self.store).open,
        )

    def requests(
        self, defaults: RowDefaults, lock: AbstractContextManager[Any]
    ) -> Iterator[list[Request]]:
        """The requests of each pending row; rows that cannot become requests are rejected here.

        ``lock`` guards the bookkeeping, which other threads use meanwhile.
        """
        for offset in self.work.unfinished():
            requests = self._requests(offset, defaults, lock)
            if requests:
                yield requests

    def reject_all(self, error: RowRejected, lock: AbstractContextManager[Any]) -> None:
        """Quarantine every row that is left, with its label where the rows were read."""
        with lock:
            for offset in self.work.unfinished():
                label = self.rows.label(offset) if self.rows else None
                self.work.reject(offset, label, error)

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
    store: Store,
    shard: Shard,
    *,
    worker: str,
    generation: int,
    suspicion: Suspicion | None = None,
) -> HeldShard | ShardState:
    """Open the shard's next epoch; returns its state instead when it is sealed already. Under
    suspicion, only some of its pending rows are for this hold.

    Raises:
        LeaseLost: another worker won the epoch.
    """
    log = ShardLog.open(store, shard.shard_id, worker=worker, generation=generation, now=utc_now)
    if isinstance(log, ShardState):
        return log
    committed, quarantined = log.state.done()
    pending = set(range(shard.rows)) - committed - quarantined
    trial = suspicion.trial(pending) if suspicion and pending else None
    tried = offsets_of(trial.rows) if trial else pending
    return HeldShard(
        store=store,
        log=log,
        work=ShardWork(shard, pending=tried),
        trial=trial,
        whole=tried == pending,
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
