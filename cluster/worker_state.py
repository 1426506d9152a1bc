"""What the threads of a worker share: its shards, its requests, and whether it goes on.

Threads tell it what happened and wait here for what concerns them. It knows no engine, no store, no
coordinator and no worker.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from cluster.coordinator import Counts
from cluster.held_shard import HeldShard
from cluster.shard_work import FinishedImage
from conf.errors import (
    CommitUnknown,
    CoordinatorLost,
    RowRejected,
    ServerLost,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from operators.request import Request

_QUEUE = 256
"""Requests that wait before the engine; reading goes on when fewer do."""
_MOST_SHARDS = 8
"""Shards that are held at a time."""
_FEW_ROWS = 64
"""Shards of so few rows that they could not fill a batch may be more, up to so many rows."""


class WorkerState:
    """Safe to use from several threads; every change is made under ``changed`` and wakes all.

    Memory is bounded whatever the store does: another shard is wanted only while few are held, and
    the engine goes on only while few images wait for their upload or commit. Images of a row that
    lacks some do not count: only the engine can make it ready to be committed.

    Invariants: a request is in the queue, in the engine, in an upload, or its image is in its
    shard's work; the owners know the requests of the first two, ``inside`` those of the engine. A
    leased shard is being opened,
    held, or on its way back.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.phase = "starting"
        self.made = 0
        self.commits = 0
        self.failure: BaseException | None = None
        self._opening: set[int] = set()
        self._held: dict[int, HeldShard] = {}
        self._revoked: set[int] = set()
        self._queue: deque[Request] = deque()
        self._owners: dict[str, HeldShard] = {}
        self._inside: dict[str, Request] = {}
        self._uploads = 0
        self._most_uploads = 1
        self._committing = 0
        self._most_waiting = 1
        self._words = 0
        self._dismissed = False
        self._nothing_free = False
        self._draining = False
        self._leaving = False
        self._tick_began_s: float | None = None

    # --- going on or not ------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Something ended the worker; the first error counts."""
        with self.changed:
            if self.failure is None:
                self.failure = error
            self.drain()

    def drain(self) -> None:
        """Admit nothing more."""
        with self.changed:
            self._draining = True
            self.changed.notify_all()

    def dismiss(self) -> None:
        """No shard will be granted any more."""
        with self.changed:
            self._dismissed = True
            self.changed.notify_all()

    def leave(self) -> None:
        """Nothing more comes out of engine and uploads: what is finished is all there will be."""
        with self.changed:
            self._leaving = True
            self.changed.notify_all()

    @property
    def draining(self) -> bool:
        """Whether nothing more is admitted: what is finished is committed as it comes."""
        return self._draining

    @property
    def more_to_come(self) -> bool:
        """Whether requests are likely to come that are not in the engine yet: some are queued, or
        the last answer to our asking was a shard."""
        if self._draining or self._dismissed:
            return False
        return bool(self._queue) or not self._nothing_free

    def answered(self, *, nothing_free: bool) -> None:
        """What the coordinator said when it was asked for a shard, all held ones being read."""
        self._nothing_free = nothing_free

    @property
    def store_lost(self) -> bool:
        """Whether writing more to the store is in vain."""
        return isinstance(self.failure, StoreUnavailable | StoreRefused | StoreFull | CommitUnknown)

    @property
    def leaving(self) -> bool:
        """Whether the last commits are being made."""
        return self._leaving

    @property
    def coordinator_lost(self) -> bool:
        """Whether talking to the coordinator is in vain."""
        return isinstance(self.failure, CoordinatorLost)

    # --- leases ---------------------------------------------------------------------------------

    def await_room(self) -> bool:
        """Wait until another shard is wanted; false when draining."""
        with self.changed:
            self.changed.wait_for(lambda: self._draining or self._wants_shard())
            return not self._draining

    def _wants_shard(self) -> bool:
        if self._revoked or self._queue:
            return False
        rows = sum(held.work.shard.rows for held in self._held.values())
        return len(self._held) < _MOST_SHARDS or rows < _FEW_ROWS

    @property
    def words(self) -> int:
        """How often the coordinator was told something that may change its next answer."""
        return self._words

    def told(self) -> None:
        """A seal or a return reached the coordinator."""
        with self.changed:
            self._words += 1
            self.changed.notify_all()

    def await_word(self, since: int, *, timeout_s: float) -> None:
        """Wait until the coordinator was told more than ``since`` words, or for the time."""
        with self.changed:
            self.changed.wait_for(lambda: self._draining or self._words > since, timeout_s)

    def lease(self, shard_id: int) -> bool:
        """Note a grant before its shard is opened.

        False: an earlier hold of the shard, whose lease ran out unheard, is not forgotten yet; give
        the grant back. That hold is revoked now, if it was not.
        """
        with self.changed:
            if shard_id in self._held or shard_id in self._revoked:
                self.revoke([shard_id])
                return False
            self._opening.add(shard_id)
            return True

    def hold(self, held: HeldShard) -> None:
        """The leased shard is open."""
        with self.changed:
            self._opening.discard(held.shard_id)
            self._held[held.shard_id] = held
            self.changed.notify_all()

    def release(self, shard_id: int) -> None:
        """The lease ended without a hold, and the coordinator knows."""
        with self.changed:
            self._opening.discard(shard_id)
            self._revoked.discard(shard_id)
            self.told()

    def revoke(self, shard_ids: Iterable[int]) -> None:
        """These shards are ours no more; the thread of the engine will forget them."""
        with self.changed:
            self._revoked |= set(shard_ids) & (self._held.keys() | self._opening)
            self.changed.notify_all()

    def revoke_hold(self, held: HeldShard) -> None:
        """This very hold is ours no more; a later one of the same shard is not meant."""
        with self.changed:
            if self._held.get(held.shard_id) is held:
                self.revoke([held.shard_id])

    def wants_image(self, held: HeldShard, request: Request) -> bool:
        """Whether the image's row is still open: another of its images may have had it rejected."""
        with self.changed:
            return not held.lost and held.work.wants(request)

    def forget_revoked(self) -> list[HeldShard]:
        """Drop the revoked holds with their requests. The caller says so to the coordinator, which
        may have granted them anew, and calls ``release``; until then no shard is asked for."""
        with self.changed:
            gone = [self._held.pop(shard_id) for shard_id in self._revoked & self._held.keys()]
            for held in gone:
                held.lost = True
            if gone:
                self._owners = {i: held for i, held in self._owners.items() if not held.lost}
                self._queue = deque(r for r in self._queue if r.image_id in self._owners)
                self._inside = {i: r for i, r in self._inside.items() if i in self._owners}
                self.changed.notify_all()
            return gone

    def queues(self) -> dict[str, int]:
        """How much waits where: requests, images, and images."""
        with self.changed:
            return {
                "requests": len(self._queue),
                "engine": len(self._inside),
                "uploads": self._uploads,
                "commits": sum(held.work.ready_images for held in self.holds()) + self._committing,
            }

    def holds(self) -> list[HeldShard]:
        """The shards that are held and not revoked."""
        with self.changed:
            return [held for i, held in self._held.items() if i not in self._revoked]

    def holding(self) -> dict[int, Counts]:
        """What the commits of each held shard hold."""
        with self.changed:
            return {shard_id: held.counts for shard_id, held in self._held.items()}

    def done(self, held: HeldShard) -> None:
        """Nothing of the shard is left to do here: it is held no more, unless anew."""
        with self.changed:
            if self._held.get(held.shard_id) is held:
                del self._held[held.shard_id]
                self._revoked.discard(held.shard_id)
            self.changed.notify_all()

    def take_leases(self) -> list[int]:
        """All shards that are leased still; they are the caller's to give back."""
        with self.changed:
            leased = [*self._held, *self._opening]
            self._held.clear()
            self._opening.clear()
            return leased

    # --- requests -------------------------------------------------------------------------------

    def enqueue(self, held: HeldShard, requests: Sequence[Request]) -> bool:
        """Queue requests once there is room; false when draining or the shard is ours no more."""
        with self.changed:
            self.changed.wait_for(lambda: self._draining or held.lost or len(self._queue) < _QUEUE)
            if self._draining or held.lost:
                return False
            self._owners.update((request.image_id, held) for request in requests)
            self._queue.extend(requests)
            self.changed.notify_all()
            return True

    def bound(self, *, uploads: int, images: int) -> None:
        """How many images may be in upload, and with them how many may wait for a commit, before
        the engine has to wait; a batch more may come out of its last tick."""
        with self.changed:
            self._most_uploads, self._most_waiting = uploads, images
            self.changed.notify_all()

    @property
    def crowded(self) -> bool:
        """Whether the engine waits for commits."""
        with self.changed:
            ready = sum(held.work.ready_images for held in self.holds())
            return ready + self._committing + self._uploads >= self._most_waiting

    def begin_commit(self, images: int) -> None:
        """So many images are being committed; they are still in memory."""
        with self.changed:
            self._committing += images

    def end_commit(self, images: int) -> None:
        """They are not any more, committed or lost."""
        with self.changed:
            self._committing -= images
            self.changed.notify_all()

    def next_requests(self, *, room: int, busy: bool) -> list[Request] | None:
        """Up to ``room`` requests for the engine, waiting while neither it nor we can do anything,
        or too much of what it made is in memory still.

        None: nothing is left to do, or the worker drains. Requests of rows that were rejected
        through another of their images are left out.
        """

        def over() -> bool:
            idle = not busy and not self._queue
            return self._draining or (idle and self._dismissed and not self._held)

        def ready() -> bool:
            useful = busy or bool(self._queue)
            revoked = not self._revoked.isdisjoint(self._held)
            flows = self._uploads < self._most_uploads and not self.crowded
            return over() or revoked or (useful and flows)

        with self.changed:
            self.changed.wait_for(ready)
            if over():
                return None
            count = min(room, len(self._queue))
            requests = [self._queue.popleft() for _ in range(count)]
            if requests:
                self.changed.notify_all()
            wanted = [request for request in requests if self._still_wanted(request)]
            self._inside.update((request.image_id, request) for request in wanted)
            return wanted

    def _still_wanted(self, request: Request) -> bool:
        held = self._owners.get(request.image_id)
        if held is not None and held.work.wants(request):
            return True
        self._owners.pop(request.image_id, None)
        return False

    def owned(self, request: Request) -> bool:
        """Whether the request, queued or in the engine, is still of a shard that is held."""
        with self.changed:
            return request.image_id in self._owners

    def leave_engine(self, request: Request) -> HeldShard | None:
        """The engine is done with the request; returns its shard, None when that was lost."""
        with self.changed:
            self._inside.pop(request.image_id, None)
            return self._owners.pop(request.image_id, None)

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """The engine is at work; one that never comes back leaves its rows ``at_work``. Of servers
        that are lost no row is to blame."""
        self._tick_began_s = time.monotonic()
        try:
            yield
        except ServerLost:
            self._tick_began_s = None
            raise
        self._tick_began_s = None

    def tick_s(self) -> float:
        """How long the tick that is under way has lasted; 0 when there is none."""
        began_s = self._tick_began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def at_work(self) -> dict[int, set[int]] | None:
        """The rows in the engine by shard, as offsets in it, when a tick began and did not end."""
        with self.changed:
            if self._tick_began_s is None:
                return None
            found: dict[int, set[int]] = {}
            for image_id, request in self._inside.items():
                held = self._owners[image_id]
                offset = held.work.offset_of(request.row_id)
                found.setdefault(held.shard_id, set()).add(offset)
            return found

    def begin_upload(self) -> None:
        """An image goes to the pool."""
        with self.changed:
            self._uploads += 1
            self.made += 1

    def end_upload(self) -> None:
        """An image left the pool."""
        with self.changed:
            self._uploads -= 1
            self.changed.notify_all()

    def finish(self, held: HeldShard, image: FinishedImage) -> None:
        """An image is ready for its shard's next commit."""
        with self.changed:
            held.work.finish(image)
            self.changed.notify_all()

    def reject(self, held: HeldShard, request: Request, error: RowRejected) -> None:
        """The request's row is quarantined with the shard's next commit."""
        with self.changed:
            held.reject(request.row_id, error)
            self.changed.notify_all()

    def rows_read(self) -> None:
        """A shard was read to its end; rows may have been rejected on the way."""
        with self.changed:
            self.changed.notify_all()
