"""The engine of which the batches are run by Triton servers.

Requests are sent by a loop in a thread of its own; a tick waits shortly for what comes back. The
servers form the batches: how full those were is known from the answers alone.
"""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from conf.schema import ModelConfig
from conf.triton_config import TritonConfig
from operators.engine import EngineInfo, EngineStats, ImageFailure, ImageResult
from operators.request import Request
from operators.triton_client.access import access_of
from operators.triton_client.dispatch import Spent
from operators.triton_client.loop_thread import LoopThread
from operators.triton_client.pool import Pool, Terms
from operators.triton_client.server import Asked
from operators.triton_client.server_model import ServerModel

Outcome = ImageResult | ImageFailure
_TICK_S = 0.05
_CLOSE_S = 15.0
"""Servers that do not answer are left in less."""
_LOOKAHEAD_BATCHES = 6
_UNKNOWN = "unknown"


def load(triton: TritonConfig, model: ModelConfig, *, priority: int) -> TritonEngine:
    """Enter the servers of ``triton.url``, one of which at least makes images.

    Raises:
        ServerLost: none does.
        ServerUnfit: a server has no such model, or not one that fits.
        OptionRefused: a header or a certificate is not on this machine.
    """
    arrived: queue.SimpleQueue[Spent | BaseException] = queue.SimpleQueue()
    thread = LoopThread("triton")
    with ExitStack() as unless_open:
        unless_open.callback(thread.close)
        pool = thread.wait(
            Pool.open(
                terms_of(triton, model, priority=priority),
                arrived.put,
                patience_s=triton.patience_s,
            )
        )
        unless_open.pop_all()
    # images that only showed that servers make any are part of loading, where that is paid for
    while triton.owned and not arrived.empty():
        arrived.get()
    return TritonEngine(pool, thread, arrived)


def look(triton: TritonConfig, model: ModelConfig, *, priority: int) -> ServerModel:
    """What the servers have, after each that answers made an image; nobody is waited for.

    Raises:
        As ``load``.
    """
    thread = LoopThread("triton")
    try:
        return thread.wait(_look(terms_of(triton, model, priority=priority)))
    finally:
        thread.close()


def terms_of(triton: TritonConfig, model: ModelConfig, *, priority: int) -> Terms:
    """How the servers are asked for the images of a job."""
    return Terms(
        config=triton,
        access=access_of(triton, os.environ),
        model=triton.model or model.name.removeprefix("simulated:"),
        priority=priority,
        probe=Request(
            image_id="probe",
            row_id=0,
            image_index=0,
            prompt="a probe",
            negative_prompt="",
            seed=0,
            width=model.width,
            height=model.height,
            steps=1,
            guidance_scale=1.0,
            sampler=model.sampler,
        ),
    )


async def _look(terms: Terms) -> ServerModel:
    pool = await Pool.open(terms, lambda _: None, patience_s=0)
    await pool.close()
    return pool.model


class TritonEngine:
    """See ``operators.engine.Engine``.

    A server tells what an image cost when it is done, so that ``stats`` know nothing of images that
    are being made; what went into those that were given up is estimated, unless the servers are the
    job's own. Ticks and slots are inferred:
    an image of n steps whose batches had r rows took part in n / r of a tick. Empty slots have no
    reason here, for only the servers see what waits.

    Invariant: a request that was admitted is in ``_inside`` until its outcome is returned or it is
    discarded.

    Args:
        arrived: what the pool's dispatcher delivers.
    """

    def __init__(
        self,
        pool: Pool,
        thread: LoopThread,
        arrived: queue.SimpleQueue[Spent | BaseException],
    ) -> None:
        self._pool = pool
        self._thread = thread
        self._arrived = arrived
        self._inside: dict[int, Asked] = {}
        self._admitted = 0
        self._halted = False
        self._lost: BaseException | None = None
        self._busy_ns = 0
        self._estimated_ns = 0
        self._row_steps = 0
        self._ticks = 0.0
        names = [str(server.client.address) for server in pool.servers]
        self._info = EngineInfo(
            name="triton",
            model=f"simulated:{pool.model.model}" if pool.model.simulated else pool.model.model,
            model_revision=pool.model.revision,
            device=f"Triton at {', '.join(names)}",
            precision=_UNKNOWN,
            max_batch=pool.model.max_batch,
            simulated=pool.model.simulated,
            devices=pool.devices,
            shared_memory=any(server.memory.shared for server in pool.servers),
        )
        self._lookahead = _LOOKAHEAD_BATCHES * self._info.max_batch * self._info.devices

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def stats(self) -> EngineStats:
        ticks = math.ceil(self._ticks - 1e-6)
        inside = len(self._inside)
        active = min(inside, self._in_flight)
        return EngineStats(
            ticks=ticks,
            occupied=self._row_steps,
            offered=ticks * self._info.max_batch,
            other_shapes=0,
            starved=0,
            busy_ns=self._busy_ns,
            active=active,
            waiting=inside - active,
            estimated_ns=self._estimated_ns,
        )

    @property
    def room(self) -> int:
        at_a_time = sum(server.endpoint.limit for server in self._pool.servers)
        return max(0, max(self._lookahead, 2 * at_a_time) - len(self._inside))

    @property
    def busy(self) -> bool:
        return bool(self._inside)

    def admit(self, requests: Sequence[Request]) -> None:
        works = []
        for request in requests:
            works.append(Asked(number=self._admitted, request=request, two_pass_guidance=True))
            self._admitted += 1
        self._inside |= {work.number: work for work in works}
        self._thread.call(self._pool.dispatcher.add, works)

    def tick(self, *, more_to_come: bool = False) -> list[Outcome]:
        if not self._inside:
            return []
        if self._halted:
            self._halted = False
            self._thread.call(self._pool.dispatcher.go_on)
        return self._take(_TICK_S)

    def finish(self) -> list[Outcome]:
        self._thread.wait(self._pool.dispatcher.halt())
        self._halted = True
        return self._take(0)

    def overdue(self, limit_s: float) -> list[Request]:
        now_s = self._thread.time()
        return [
            work.request
            for work in self._inside.values()
            # read once: it is the loop's to change
            if (since_s := work.alone_since_s) is not None and now_s - since_s > limit_s
        ]

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        dropped = [work for work in self._inside.values() if unwanted(work.request)]
        for work in dropped:
            del self._inside[work.number]
        self._thread.call(self._pool.dispatcher.drop, dropped)
        return len(dropped)

    def close(self) -> None:
        """Leave the servers and end the thread; what is inside is lost.

        Raises:
            TimeoutError: the thread hangs; it is left behind.
        """
        self._thread.wait(self._pool.close(), timeout_s=_CLOSE_S)
        self._thread.close()

    @property
    def _in_flight(self) -> int:
        return sum(server.endpoint.in_flight for server in self._pool.servers)

    def _take(self, wait_s: float) -> list[Outcome]:
        """What came of the requests by now, waiting so long for the first of it."""
        outcomes: list[Outcome] = []
        try:
            arrived = self._arrived.get(timeout=wait_s) if wait_s else self._arrived.get_nowait()
            while True:
                if isinstance(arrived, BaseException):
                    self._lost = self._lost or arrived
                else:
                    outcomes += self._accept(arrived)
                arrived = self._arrived.get_nowait()
        except queue.Empty:
            pass
        if self._lost is not None and not outcomes:
            raise self._lost
        return outcomes

    def _accept(self, spent: Spent) -> list[Outcome]:
        self._busy_ns += spent.device_ns
        self._estimated_ns += spent.device_ns if spent.estimated else 0
        work, outcome = spent.work, spent.outcome
        if work is None or outcome is None or self._inside.pop(work.number, None) is None:
            return []
        if isinstance(outcome, ImageResult):
            steps = outcome.request.steps
            self._row_steps += steps
            self._ticks += steps / min(max(1, outcome.batch_rows), self._info.max_batch)
        return [outcome]
