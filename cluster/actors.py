"""The Ray actors: thin shells that give the coordinator and the worker a process of their own."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from cluster.accounts import Budget
from cluster.backlog import backlog
from cluster.budget import NOTHING, Allowance, Caps, Spent, leave_s
from cluster.checkpointer import Checkpointer
from cluster.coordinator import (
    BeatReply,
    Coordinator,
    CoordinatorLink,
    Snapshot,
    WorkerProgress,
)
from cluster.headcount import Headcount
from cluster.leases import Dismiss, Grant, Wait
from cluster.lifetime import ServerBilling
from cluster.metrics import RunMetrics, WorkerMetrics
from cluster.nodes import Node, nodes_now, whole_nodes
from cluster.plan_file import PlanReader
from cluster.price import Price
from cluster.pricing import Takes, machine_of, price_on
from cluster.ray_session import Resources
from cluster.records import Ranges
from cluster.sealed_shard import SealedShard
from cluster.server_price import server_billing, server_price
from cluster.setbacks import Loss
from cluster.settled import Settled
from cluster.store import Store
from cluster.suspicion import Trial
from cluster.term_signal import TermSignal
from cluster.worker import Identity, Worker, WorkerOutcome, begin_lifetime, outcome_of
from cluster.worker_environment import THREADS
from conf.errors import CoordinatorLost, ImageMillError, ModelUnusable
from conf.parser import parse_config
from conf.price_book import PriceBook
from conf.schema import RunConfig
from operators.engine import Engine
from operators.engines import engine_of

log = logging.getLogger("imagemill")
_ANSWER_S = 60.0
_CHECKPOINT_PATIENCE_S = 5.0
"""How long the coordinator asks the store for a checkpoint: nobody may wait in vain for a file that
can be done without, neither at the start nor at the end."""


class CoordinatorActor:
    """See ``cluster.coordinator.Coordinator``; ``shards`` None means all of them. What the newest
    checkpoint settles is not handed out, and what is sealed from now on goes into the next ones.
    ``settled`` is what earlier runs cost, ``allowance`` what the project's budget leaves."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        total: int,
        shards: Sequence[int] | None,
        lease_s: float,
        settled: Spent = NOTHING,
        allowance: Allowance | None = None,
    ) -> None:
        parsed = parse_config(config)
        store = Store.of(parsed, patience_s=_CHECKPOINT_PATIENCE_S)
        left = backlog(Settled.of(store), total=total, shards=shards)
        caps = Caps.of(parsed.budget, parsed.pricing.currency or "")
        self._coordinator = Coordinator(
            left.pending,
            total=left.total,
            sealed=left.sealed,
            counts=left.counts,
            lease_s=lease_s,
            budget=Budget(
                caps,
                settled,
                leave_s=leave_s(parsed),
                allowance=allowance,
                by_use=server_billing(parsed) is ServerBilling.SHARED,
            ),
        )
        self._checkpointer = Checkpointer(store, every_s=parsed.cluster.checkpoint_s)
        self._metrics = RunMetrics(
            job=parsed.job.name or "job",
            project=parsed.job.project,
            rows=PlanReader(store).rows,
            max_quarantined=parsed.job.max_quarantined,
            caps=caps,
        )

    def acquire(self, worker: str) -> Grant | Wait | Dismiss:
        return self._coordinator.acquire(worker)

    def sealed(self, worker: str, seal: SealedShard) -> None:
        self._coordinator.sealed(worker, seal)
        self._checkpointer.add(seal)

    def trying(self, worker: str, shard_id: int, trial: Trial) -> None:
        self._coordinator.trying(worker, shard_id, trial)

    def survived(self, worker: str, shard_id: int) -> None:
        self._coordinator.survived(worker, shard_id)

    def returned(self, worker: str, shard_id: int, failed: bool, at_work: Ranges | None) -> None:
        self._coordinator.returned(worker, shard_id, failed, at_work)

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        return self._coordinator.beat(worker, progress)

    def allow(self, allowance: Allowance) -> None:
        self._coordinator.allow(allowance)

    def hired(self, worker: str) -> None:
        self._coordinator.hired(worker)

    def begun(self, worker: str, nano_per_hour: int | None) -> None:
        self._coordinator.begun(worker, nano_per_hour)

    def gone(self, worker: str, crashed: bool) -> None:
        self._coordinator.gone(worker, crashed)

    def lost(self, loss: Loss) -> None:
        self._coordinator.lost(loss)

    def staffed(self, headcount: Headcount) -> None:
        """How many workers the driver wants now, for whoever looks at the metrics."""
        self._metrics.headcount = headcount

    def preempt(self, worker: str) -> None:
        self._coordinator.preempt(worker)

    def nodes(self) -> tuple[Node, ...]:
        return nodes_now()

    def drain(self) -> None:
        self._coordinator.drain()

    def snapshot(self) -> Snapshot:
        """The driver looks several times a second; so often the metrics are new."""
        snapshot = self._coordinator.snapshot()
        self._metrics.tell(snapshot)
        return snapshot

    def close(self) -> None:
        """Write the last checkpoint of the run."""
        self._checkpointer.close()


def answer_of(reference: Any) -> Any:
    """What the coordinator answers to a call.

    Raises:
        CoordinatorLost: it died or does not answer, and why; the call may have reached it or not.
        ImageMillError: the call itself failed with it there.
    """
    try:
        return ray.get(reference, timeout=_ANSWER_S)
    except GetTimeoutError as error:
        raise CoordinatorLost(
            f"the run's coordinator did not answer within {_ANSWER_S:g} s"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, ImageMillError):
            raise error.cause from error
        raise CoordinatorLost(f"the run's coordinator failed: {_last_line(error)}") from error
    except RayError as error:
        raise CoordinatorLost(f"the run's coordinator died: {_last_line(error)}") from error


def _last_line(error: RayError) -> str:
    """Where Ray puts the cause: an actor whose constructor failed names that error there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class RayLink:
    """A worker's link to a coordinator actor. Every call may raise ``CoordinatorLost``."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def acquire(self, worker: str) -> Grant | Wait | Dismiss:
        answer: Grant | Wait | Dismiss = answer_of(self._coordinator.acquire.remote(worker))
        return answer

    def sealed(self, worker: str, seal: SealedShard) -> None:
        answer_of(self._coordinator.sealed.remote(worker, seal))

    def trying(self, worker: str, shard_id: int, trial: Trial) -> None:
        answer_of(self._coordinator.trying.remote(worker, shard_id, trial))

    def survived(self, worker: str, shard_id: int) -> None:
        answer_of(self._coordinator.survived.remote(worker, shard_id))

    def returned(
        self, worker: str, shard_id: int, failed: bool, at_work: Ranges | None = None
    ) -> None:
        answer_of(self._coordinator.returned.remote(worker, shard_id, failed, at_work))

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        reply: BeatReply = answer_of(self._coordinator.beat.remote(worker, progress))
        return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A worker's first word: where it is, and what its time costs, in 1e-9 currency units an hour.
    ``unpriced``: why that is not known; "" where it is."""

    node_id: str
    node: str
    nano_per_hour: int | None
    unpriced: str


def node_here() -> Node | None:
    """The node of this process; None where Ray does not list it."""
    node_id = ray.get_runtime_context().get_node_id()
    return next((node for node in whole_nodes() if node.node_id == node_id), None)


def take_threads(size: Resources) -> None:
    """Take this worker's share of its node's CPUs, before anybody has loaded torch."""
    node = node_here()
    if node is not None:
        os.environ[THREADS] = str(size.threads_on(node))


def price_here(config: RunConfig, book: PriceBook) -> Price:
    """What the worker of this process costs, or a device of the servers that work for it."""
    if config.engine.name == "triton":
        return server_price(config, book, at=datetime.now(UTC))
    context = ray.get_runtime_context()
    machine = machine_of(config, context.get_node_labels(), os.environ)
    has = node_here()
    takes = Takes(
        gpus=gpus_here(),
        threads=int(os.environ.get(THREADS, "1")),
        node_gpus=has.gpus if has else 0,
        node_cpus=has.cpus if has else 0,
    )
    return price_on(book, machine, takes, at=datetime.now(UTC), output=config.output.path)


def gpus_here() -> float:
    """How many GPUs the worker of this process has, such as 0.5."""
    found: float = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    return found


class WorkerActor:
    """See ``cluster.worker.Worker``. ``hello`` answers once the process is up; the worker's life,
    for which somebody pays, begins before that, with the actor."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        worker: str,
        run: int,
        generation: int,
        model_revision: str,
        book: PriceBook,
        size: Resources,
        coordinator: Any,
    ) -> None:
        self._term = TermSignal()
        if size.threads is None:
            take_threads(size)
        self._config = parse_config(config)
        self._model_revision = model_revision
        self._identity = Identity(
            worker=worker,
            run=run,
            generation=generation,
            node=platform.node(),
            gpus=",".join(str(gpu) for gpu in ray.get_gpu_ids()),
            price=price_here(self._config, book),
            gpu_share=min(1.0, gpus_here() or 1.0),
            servers=server_billing(self._config),
        )
        self._lifetime = begin_lifetime(self._identity)
        self._link: CoordinatorLink = RayLink(coordinator)

    def hello(self) -> Hello:
        """Where this worker is, and what its time costs."""
        return Hello(
            node_id=ray.get_runtime_context().get_node_id(),
            node=self._identity.node,
            nano_per_hour=self._identity.price.nano_per_hour,
            unpriced=self._identity.price.unpriced,
        )

    def run(self) -> WorkerOutcome:
        """Work until nothing is left."""
        config = self._config
        try:
            store = Store.of(config)
            plan = PlanReader(store)
        except ImageMillError as error:
            return outcome_of(self._identity.worker, error)
        metrics = WorkerMetrics(
            job=config.job.name or "job",
            project=config.job.project,
            currency=self._identity.price.currency,
        )
        store.traffic.put_took = metrics.put_took
        closing = ExitStack()
        worker = Worker(
            config,
            self._identity,
            store=store,
            shards=plan,
            link=self._link,
            make_engine=lambda: self._engine(closing),
            lifetime=self._lifetime,
            told=metrics.tell,
        )
        self._term.watch(lambda: worker.preempt("its process was told to end (SIGTERM)"))
        try:
            return worker.run()
        finally:
            _close(closing)

    def _engine(self, closing: ExitStack) -> Engine:
        """The engine, with the very model that the job began with."""
        engine = engine_of(self._config, closing)
        found = engine.info.model_revision
        if found != self._model_revision:
            where = (
                f"of {engine.info.device}"
                if self._config.engine.name == "triton"
                else f"at {self._config.model.path} on node {self._identity.node}"
            )
            raise ModelUnusable(
                f"the model {where} has revision {found}; this job began with "
                f"{self._model_revision}; put the same model on every node"
            )
        return engine


def _close(closing: ExitStack) -> None:
    """All is committed and told by now: what cannot be closed, and ends with this process, must
    neither fail the worker nor hide what did."""
    try:
        closing.close()
    except Exception as error:  # noqa: BLE001 - the actor's boundary: it becomes an event
        log.warning("the engine was not closed: %r", error, extra={"event": "engine_left"})
