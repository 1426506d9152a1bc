"""The worker: pulls shards, keeps the engine full, uploads and commits beside it.

It starts the threads, watches the engine's, and leaves in order. What each thread does is
in ``feeder``, ``engine_loop``, ``committer`` and ``pulse``; what they share is in ``worker_state``.
The worker knows the coordinator only as a link and Ray not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.commit_writer import CommitWriter
from cluster.committer import Committer
from cluster.coordinator import CoordinatorLink
from cluster.engine_loop import EngineLoop
from cluster.feeder import Feeder, Shards
from cluster.image_upload import ImageUploader
from cluster.ledger import Attribution, Payer
from cluster.lifetime import Lifetime, ServerBilling
from cluster.price import Price
from cluster.pulse import Pulse
from cluster.reading import Reading, nobody_watches
from cluster.records import ranges_of
from cluster.store import Store
from cluster.worker_state import WorkerState
from conf.errors import (
    CommitConflict,
    CommitUnknown,
    CoordinatorLost,
    EngineHung,
    ImageMillError,
    LeaseLost,
    Preempted,
    Retryable,
)
from conf.schema import RunConfig
from operators.engine import Engine, EngineInfo, EngineStats

_MAY_PASS = (Retryable, CommitUnknown, CommitConflict, LeaseLost)
"""What ends a worker, but not the job: the next epoch of the shard starts from what landed."""
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a worker is, in records, what it costs, and how much of its GPUs is its own.

    ``servers``: how the servers that make its images are paid for; None: it makes them itself.
    """

    worker: str
    run: int
    generation: int
    node: str
    gpus: str
    price: Price
    gpu_share: float = 1.0
    servers: ServerBilling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOutcome:
    """How a worker ended. ``error`` names the class of our tree that stopped it, if any.

    ``retryable``: the error may pass, so that another worker can go on in its place.
    """

    worker: str
    error: str | None = None
    message: str = ""
    retryable: bool = False


def begin_lifetime(identity: Identity) -> Lifetime:
    """The life of this worker, from now on."""
    return Lifetime(
        worker=identity.worker,
        run=identity.run,
        node=identity.node,
        gpus=identity.gpus,
        price=identity.price,
        servers=identity.servers,
    )


class Worker:
    """One engine at work. ``run`` is called once.

    Invariant: when ``run`` ends, everything that was finished is committed, unless its shard was
    lost or the store failed; every lease is sealed or given back as far as the coordinator could be
    told, and the closing stamp is in the store if the store takes it.

    Args:
        lifetime: begun when the worker's process began to be paid for; None: it begins now.
        told: hears of the worker's totals at each beat.
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
        lifetime: Lifetime | None = None,
        told: Callable[[Reading], None] = nobody_watches,
    ) -> None:
        self._config = config
        self._me = identity
        self._store = store
        self._link = link
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._state = WorkerState()
        self._lifetime = lifetime or begin_lifetime(identity)
        self._feeder = Feeder(
            config,
            self._state,
            store=store,
            shards=shards,
            link=link,
            worker=identity.worker,
            run=identity.run,
            generation=identity.generation,
        )
        self._pulse = Pulse(
            self._state,
            self._lifetime,
            store=store,
            link=link,
            worker=identity.worker,
            heartbeat_s=config.cluster.heartbeat_s,
            stats=self._stats,
            engine=self._info,
            told=told,
        )

    def run(self) -> WorkerOutcome:
        """Work until there is nothing left, a drain is asked for, or something fails for good.

        Raises:
            Exception: what is no error of our tree, such as a lost device.
        """
        pulse = self._thread("pulse", self._pulse.run)
        feeder: threading.Thread | None = None
        committer: threading.Thread | None = None
        try:
            self._pulse.persist()
            engine = self._load()
            # only now: a model that cannot be loaded must not be held against a shard
            feeder = self._thread("feeder", self._feeder.run)
            committer = self._thread("committer", self._committer(engine.info).run)
            self._drive(engine)
        except Exception as error:  # noqa: BLE001 - the actor's boundary: it becomes the outcome
            self._state.fail(error)
        self._leave(feeder, committer)
        self._close()
        self._pulse.stop()
        pulse.join()
        return self._outcome()

    def preempt(self, why: str) -> None:
        """The machine is being taken away: commit what is finished, give the leases back, leave.
        May be called from any thread, before ``run`` too."""
        self._state.fail(Preempted(why))

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - a thread's boundary: it becomes the outcome
                self._state.fail(error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _stats(self) -> EngineStats | None:
        return self._engine.stats if self._engine else None

    def _info(self) -> EngineInfo | None:
        return self._engine.info if self._engine else None

    def _load(self) -> Engine:
        self._state.phase = "loading"
        with self._lifetime.overhead():
            self._engine = self._make_engine()
        self._lifetime.serve(self._engine.info.devices)
        self._state.phase = "running"
        return self._engine

    def _drive(self, engine: Engine) -> None:
        uploader = ImageUploader(self._store, self._config.output, engine.info)
        threads = self._config.cluster.io_threads
        uploads = 4 * engine.info.max_batch * engine.info.devices + 2 * threads
        self._state.bound(uploads=uploads, images=2 * self._config.job.commit_images + uploads)
        with ThreadPoolExecutor(threads, "io") as pool:
            loop = EngineLoop(
                engine,
                uploader,
                pool,
                self._state,
                link=self._link,
                worker=self._me.worker,
                row_timeout_s=self._config.job.row_timeout_s,
            )
            self._watch(self._thread("engine", loop.run))

    def _watch(self, engine: threading.Thread) -> None:
        """Wait for the engine's thread; one that hangs in a tick is left behind."""
        limit_s = self._config.job.row_timeout_s
        while engine.is_alive():
            engine.join(_LOOK_S)
            if self._state.tick_s() > limit_s:
                self._state.fail(
                    EngineHung(f"the engine did not come back within job.row_timeout_s={limit_s:g}")
                )
                return

    def _committer(self, engine: EngineInfo) -> Committer:
        writer = CommitWriter(
            self._store,
            self._config.output,
            engine=engine,
            payer=self._payer(),
            attribution=Attribution.of(self._config.job),
            energy=self._config.energy,
        )
        return Committer(
            self._config.job,
            self._state,
            writer,
            link=self._link,
            worker=self._me.worker,
            stamp=self._pulse.stamp,
        )

    def _payer(self) -> Payer:
        me = self._me
        gpus = tuple(filter(None, me.gpus.split(",")))
        return Payer(worker=me.worker, node=me.node, price=me.price, gpus=gpus, share=me.gpu_share)

    def _leave(self, feeder: threading.Thread | None, committer: threading.Thread | None) -> None:
        """Stop admitting, commit what is finished, give the leases back."""
        self._state.phase = "leaving"
        self._state.drain()
        if feeder is not None:
            feeder.join()
        self._state.leave()
        if committer is not None:
            committer.join()
        leases = self._state.take_leases()
        if self._state.coordinator_lost:
            return
        try:
            self._give_back(leases)
        except CoordinatorLost as error:
            self._state.fail(error)

    def _give_back(self, leases: Iterable[int]) -> None:
        """Return what is leased still. When the engine failed, its rows are the suspects; when
        anything else failed that has no name, all shards are."""
        failure, at_work = self._state.failure, self._state.at_work()
        unknown = failure is not None and not isinstance(failure, ImageMillError)
        for shard_id in leases:
            if at_work is None:
                self._link.returned(self._me.worker, shard_id, unknown)
            else:
                rows = ranges_of(at_work.get(shard_id, ()))
                self._link.returned(self._me.worker, shard_id, bool(rows), rows or None)

    def _close(self) -> None:
        """Report what is committed and write the closing stamp."""
        self._pulse.beat()
        try:
            self._pulse.close()
        except ImageMillError as error:
            self._state.fail(error)

    def _outcome(self) -> WorkerOutcome:
        error = self._state.failure
        if error is None:
            return WorkerOutcome(worker=self._me.worker)
        if not isinstance(error, ImageMillError):
            raise error
        return outcome_of(self._me.worker, error)


def outcome_of(worker: str, error: ImageMillError) -> WorkerOutcome:
    """How a worker ended that an error of our tree stopped."""
    return WorkerOutcome(
        worker=worker,
        error=type(error).__name__,
        message=str(error),
        retryable=isinstance(error, _MAY_PASS) and not isinstance(error, CoordinatorLost),
    )
