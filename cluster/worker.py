"""The worker: pulls shards, keeps the engine full, uploads and commits beside it.

Threads around one lock: the caller's drives the engine, the feeder leases and reads shards, a pool
encodes and uploads, the committer writes commits and seals, the pulse reports. The worker knows the
coordinator only as a link and Ray not at all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from cluster.commit_writer import CommitWriter
from cluster.coordinator import CoordinatorLink, Counts, WorkerProgress
from cluster.held_shard import HeldShard, counts_of, open_shard
from cluster.image_upload import ImageUploader
from cluster.leases import Dismiss, Grant, Wait
from cluster.lifetime import Lifetime, persist, utc_now
from cluster.money import price_of
from cluster.records import Shard
from cluster.shard_log import ShardState
from cluster.store import Store
from conf.errors import CommitUnknown, ImageMillError, LeaseLost, RowRejected
from conf.schema import RunConfig
from operators.engine import Engine, ImageFailure, ImageResult
from operators.request import Request
from operators.row_defaults import row_defaults

_STAMP_EVERY_S = 10.0
_IDLE_S = 0.2
_QUEUE = 256
"""Requests that wait before the engine; reading goes on when fewer do."""


class Shards(Protocol):
    """Where shards' descriptions come from."""

    def shard(self, shard_id: int) -> Shard: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a worker is, in records."""

    worker: str
    run: int
    generation: int
    node: str
    gpus: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOutcome:
    """How a worker ended. ``error`` names the class of our tree that stopped it, if any."""

    worker: str
    error: str | None
    message: str


class Worker:
    """One engine at work. ``run`` is called once.

    Invariant: a request is in the queue, in the engine, in the pool, or its image is in its shard's
    work; ``_owners`` knows the requests of the first two.
    """

    def __init__(
        self,
        config: RunConfig,
        identity: Identity,
        *,
        store: Store,
        shards: Shards,
        link: CoordinatorLink,
        make_engine: Callable[[], Engine],
    ) -> None:
        self._config = config
        self._me = identity
        self._store = store
        self._shards = shards
        self._link = link
        self._make_engine = make_engine
        self._defaults = row_defaults(config)
        self._lifetime = Lifetime(
            worker=identity.worker, run=identity.run, node=identity.node, gpus=identity.gpus
        )
        self._changed = threading.Condition()
        self._engine: Engine | None = None
        self._uploader: ImageUploader | None = None
        self._held: dict[int, HeldShard] = {}
        self._queue: deque[Request] = deque()
        self._owners: dict[str, HeldShard] = {}
        self._revoked: set[int] = set()
        self._uploading = 0
        self._made = 0
        self._phase = "starting"
        self._dismissed = False
        self._draining = False
        self._leaving = False
        self._pulse_stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> WorkerOutcome:
        """Work until there is nothing left, a drain is asked for, or something fails for good."""
        persist(self._store, self._lifetime.stamp(None))
        feeder = self._thread(self._feed)
        pulse = self._thread(self._pulse)
        committer: threading.Thread | None = None
        try:
            self._phase = "loading"
            with self._lifetime.overhead():
                self._engine = self._make_engine()
            self._uploader = ImageUploader(self._store, self._config.output, self._engine.info)
            self._phase = "running"
            committer = self._thread(self._commit_loop)
            with ThreadPoolExecutor(self._config.cluster.io_threads, "io") as pool:
                self._drive(self._engine, pool)
        except Exception as error:  # noqa: BLE001 - the actor's boundary: it becomes the outcome
            self._fail(error)
        self._leave(feeder, committer)
        self._pulse_stop.set()
        pulse.join()
        return self._close()

    def _thread(self, target: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - a thread's boundary: it becomes the outcome
                self._fail(error)

        thread = threading.Thread(target=guarded, name=target.__name__, daemon=True)
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._draining = True
            self._changed.notify_all()

    # --- feeding: lease, read, validate ---------------------------------------------------------

    def _feed(self) -> None:
        while self._wait_for_room():
            answer = self._link.acquire(self._me.worker)
            match answer:
                case Dismiss():
                    with self._changed:
                        self._dismissed = True
                        self._changed.notify_all()
                    return
                case Wait():
                    with self._changed:
                        self._changed.wait_for(lambda: self._draining, timeout=_IDLE_S)
                case Grant():
                    self._open(answer)

    def _wait_for_room(self) -> bool:
        """Wait until another shard is wanted; false when draining."""

        def wanted() -> bool:
            return self._draining or (not self._revoked and not self._queue)

        with self._changed:
            self._changed.wait_for(wanted)
            return not self._draining

    def _open(self, grant: Grant) -> None:
        shard = self._shards.shard(grant.shard_id)
        try:
            opened = open_shard(
                self._store,
                shard,
                worker=self._me.worker,
                generation=self._me.generation,
            )
        except LeaseLost:
            self._link.returned(self._me.worker, grant.shard_id, False)
            return
        if isinstance(opened, ShardState):
            self._link.sealed(self._me.worker, grant.shard_id, counts_of(opened))
            return
        opened.counts = counts_of(opened.log.state)
        with self._changed:
            self._held[grant.shard_id] = opened
        self._enqueue(opened, give_up=grant.give_up)

    def _enqueue(self, held: HeldShard, *, give_up: bool) -> None:
        """Read the shard's rows as the queue takes them; stop when the shard is no longer ours."""
        rows = held.read(self._config, self._defaults, self._changed, give_up=give_up)
        for requests in rows:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._draining or len(self._queue) < _QUEUE or held.lost
                )
                if self._draining or held.lost:
                    return
                for request in requests:
                    self._owners[request.image_id] = held
                self._queue.extend(requests)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    # --- driving the engine ---------------------------------------------------------------------

    def _drive(self, engine: Engine, pool: ThreadPoolExecutor) -> None:
        while True:
            self._forget_revoked(engine)
            with self._changed:
                if self._draining:
                    return
                if self._uploading >= self._upload_limit(engine):
                    self._changed.wait(_IDLE_S)
                    continue
                requests = [
                    self._queue.popleft() for _ in range(min(engine.room, len(self._queue)))
                ]
                if requests:
                    self._changed.notify_all()
                elif not engine.busy:
                    if self._dismissed and not self._held:
                        return
                    self._changed.wait(_IDLE_S)
                    continue
            wanted = [request for request in requests if self._still_wanted(request)]
            engine.admit(wanted)
            for result in engine.tick() if engine.busy else ():
                self._route(result, pool)

    def _upload_limit(self, engine: Engine) -> int:
        return 4 * engine.info.max_batch + 2 * self._config.cluster.io_threads

    def _still_wanted(self, request: Request) -> bool:
        """False for the remaining images of a row that another of its images had rejected."""
        with self._changed:
            held = self._owners.get(request.image_id)
            if held is not None and held.work.wants(request):
                return True
            self._owners.pop(request.image_id, None)
            return False

    def _forget_revoked(self, engine: Engine) -> None:
        """Drop what is no longer ours and say so: the board may have granted it to us again."""
        with self._changed:
            revoked = set(self._revoked)
            if not revoked:
                return
            gone = [h for s in revoked if (h := self._held.pop(s, None)) is not None]
            for held in gone:
                held.lost = True
            for image_id in [i for i, held in self._owners.items() if held in gone]:
                del self._owners[image_id]
            self._queue = deque(r for r in self._queue if r.image_id in self._owners)
            engine.discard(lambda request: request.image_id not in self._owners)
            self._changed.notify_all()
        for held in gone:
            self._link.returned(self._me.worker, held.work.shard.shard_id, False)
        with self._changed:
            self._revoked -= revoked
            self._changed.notify_all()

    def _route(self, result: ImageResult | ImageFailure, pool: ThreadPoolExecutor) -> None:
        with self._changed:
            held = self._owners.pop(result.request.image_id, None)
            if held is None:
                return
            if isinstance(result, ImageFailure):
                held.reject(
                    result.request.row_id,
                    RowRejected(stage=result.stage, reason=result.reason, message=result.message),
                )
                self._changed.notify_all()
                return
            self._uploading += 1
            self._made += 1
        pool.submit(self._upload, result, held)

    # --- encode and upload ----------------------------------------------------------------------

    def _upload(self, result: ImageResult, held: HeldShard) -> None:
        try:
            assert self._uploader is not None
            image = self._uploader.upload(result, held)
            with self._changed:
                held.work.finish(image)
        except RowRejected as error:
            with self._changed:
                held.reject(result.request.row_id, error)
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: it becomes the outcome
            self._fail(error)
        finally:
            with self._changed:
                self._uploading -= 1
                self._changed.notify_all()

    # --- commit and seal ------------------------------------------------------------------------

    def _commit_loop(self) -> None:
        assert self._engine is not None
        writer = CommitWriter(
            self._store,
            self._config.output,
            engine=self._engine.info,
            price=price_of(self._config.pricing),
            worker=self._me.worker,
        )
        while True:
            with self._changed:
                held = self._due()
                if held is None:
                    if self._leaving:
                        return
                    self._changed.wait(_IDLE_S)
                    continue
                batch, last = held.work.take(), held.work.all_done
                held.committed_at_s = time.monotonic()
            try:
                if batch.rows or batch.rejected:
                    stamp = self._lifetime.stamp(self._engine.stats)
                    commit = writer.write(held.log, held.work, held.rows, batch, stamp)
                    held.add(commit)
                if last:
                    held.log.seal(now=utc_now)
            except (LeaseLost, CommitUnknown):
                self._drop(held)
            else:
                if last:
                    self._sealed(held)

    def _due(self) -> HeldShard | None:
        job = self._config.job
        now_s = time.monotonic()
        for held in self._held.values():
            work = held.work
            late = now_s - held.committed_at_s >= job.commit_seconds or self._leaving
            if work.all_done or (
                work.anything_ready and (late or work.ready_images >= job.commit_images)
            ):
                return held
        return None

    def _sealed(self, held: HeldShard) -> None:
        shard_id = held.work.shard.shard_id
        with self._changed:
            if self._held.get(shard_id) is held:
                del self._held[shard_id]
            self._changed.notify_all()
        self._link.sealed(self._me.worker, shard_id, held.counts)

    def _drop(self, held: HeldShard) -> None:
        """Somebody else may own the shard: forget it here, let the board hand it out again."""
        shard_id = held.work.shard.shard_id
        with self._changed:
            if self._held.get(shard_id) is not held:
                return
            self._revoked.add(shard_id)
            self._changed.notify_all()
            self._changed.wait_for(lambda: held.lost or self._draining)
            if held.lost:
                return
            del self._held[shard_id]
        self._link.returned(self._me.worker, shard_id, False)

    # --- reporting and leaving ------------------------------------------------------------------

    def _pulse(self) -> None:
        stamped_at_s = time.monotonic()
        while not self._pulse_stop.wait(self._config.cluster.heartbeat_s):
            reply = self._link.beat(self._me.worker, self._progress())
            with self._changed:
                self._revoked |= set(reply.revoked) & set(self._held)
                self._draining = self._draining or reply.drain
                self._changed.notify_all()
            if time.monotonic() - stamped_at_s >= _STAMP_EVERY_S:
                stamped_at_s = time.monotonic()
                stats = self._engine.stats if self._engine else None
                persist(self._store, self._lifetime.stamp(stats))

    def _progress(self) -> WorkerProgress:
        engine = self._engine
        stats = engine.stats if engine else None
        with self._changed:
            return WorkerProgress(
                phase=self._phase,
                holding=sum((held.counts for held in self._held.values()), Counts()),
                made=self._made,
                occupied=stats.occupied if stats else 0,
                offered=stats.offered if stats else 0,
                lifetime_ns=self._lifetime.elapsed_ns,
            )

    def _leave(self, feeder: threading.Thread, committer: threading.Thread | None) -> None:
        """Stop admitting, commit what is finished, give the leases back."""
        with self._changed:
            self._phase = "leaving"
            self._draining = True
            self._changed.notify_all()
        feeder.join()
        with self._changed:
            self._leaving = True
            self._changed.notify_all()
        if committer is not None:
            committer.join()
        failed = self._failure is not None and not isinstance(self._failure, ImageMillError)
        for shard_id in list(self._held):
            self._held.pop(shard_id)
            self._link.returned(self._me.worker, shard_id, failed)

    def _close(self) -> WorkerOutcome:
        error = self._failure
        stats = self._engine.stats if self._engine else None
        try:
            self._link.beat(self._me.worker, self._progress())
            persist(self._store, self._lifetime.stamp(stats, closed=True))
        except ImageMillError as late:
            error = error or late
        if error is not None and not isinstance(error, ImageMillError):
            raise error
        return WorkerOutcome(
            worker=self._me.worker,
            error=type(error).__name__ if error else None,
            message=str(error) if error else "",
        )
