"""One engine, driven by a thread of its own for requests that other threads hand over.

Owns the thread, the places in the engine and who gets which outcome. Knows nothing of Triton.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from operators.engine import Engine, EngineInfo, ImageFailure, ImageResult
from operators.request import Request

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Nobody waits for the image any more; its place in the engine is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLost:
    """The engine makes no more images, for this reason."""

    reason: str


Answer = ImageResult | ImageFailure | Cancelled | EngineLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request on its way: its ``row_id`` is the only one in the loop.

    ``cancelled`` is asked before every tick. ``answer`` is called once and must not raise.
    """

    request: Request
    cancelled: Callable[[], bool]
    answer: Callable[[Answer], None]


class EngineLoop:
    """Ticks as long as there are requests; new ones enter before the next tick.

    Invariant: a ticket that was submitted is in ``_arrived``, then in ``_inside``, until it is
    answered; both together never hold more than ``held``.

    Args:
        load: makes the engine, in the loop's thread.
        held: how many requests the loop takes; the next ones wait with who submits them.
    """

    def __init__(self, load: Callable[[], Engine], *, held: int) -> None:
        self._load = load
        self._held = held
        self._changed = threading.Condition()
        self._arrived: list[Ticket] = []
        self._inside: dict[int, Ticket] = {}
        self._closing = False
        self._lost: EngineLost | None = None
        self._loaded: Future[EngineInfo] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> EngineInfo:
        """Load the engine and begin.

        Raises:
            Exception: whatever loading raised.
        """
        self._thread.start()
        return self._loaded.result()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Hand tickets over, one by one as places become free; may wait for that."""
        for ticket in tickets:
            lost = self._accept(ticket)
            if lost is not None:
                ticket.answer(lost)

    def close(self) -> None:
        """Make what was submitted, then end the thread. Nothing may be submitted any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _accept(self, ticket: Ticket) -> EngineLost | None:
        with self._changed:
            self._changed.wait_for(self._has_place)
            if self._lost is None:
                self._arrived.append(ticket)
                self._changed.notify_all()
            return self._lost

    def _has_place(self) -> bool:
        return len(self._arrived) + len(self._inside) < self._held

    def _run(self) -> None:
        try:
            engine = self._load()
        except BaseException as error:  # noqa: BLE001  it is raised again where the loop is started
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(engine.info)
        try:
            while self._take_arrived(engine):
                self._drop_cancelled(engine)
                for outcome in engine.tick(more_to_come=True) if self._inside else ():
                    self._leave(outcome.request.row_id).answer(outcome)
        except Exception as error:  # noqa: BLE001  whatever it is, all who wait hear of it
            _log.exception("the engine is lost", extra={"event": "engine_lost"})
            self._give_up(EngineLost(reason=f"{type(error).__name__}: {error}"))

    def _take_arrived(self, engine: Engine) -> bool:
        """Admit what arrived, waiting while there is nothing to do; False when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._inside or self._closing)
            arrived, self._arrived = self._arrived, []
            self._inside |= {ticket.request.row_id: ticket for ticket in arrived}
        engine.admit([ticket.request for ticket in arrived])
        return bool(self._inside)

    def _drop_cancelled(self, engine: Engine) -> None:
        gone = [number for number, ticket in self._inside.items() if ticket.cancelled()]
        if not gone:
            return
        engine.discard(lambda request: request.row_id in gone)
        for number in gone:
            self._leave(number).answer(Cancelled())

    def _leave(self, number: int) -> Ticket:
        with self._changed:
            ticket = self._inside.pop(number)
            self._changed.notify_all()
        return ticket

    def _give_up(self, lost: EngineLost) -> None:
        with self._changed:
            self._lost = lost
            left = [*self._inside.values(), *self._arrived]
            self._inside, self._arrived = {}, []
            self._changed.notify_all()
        for ticket in left:
            ticket.answer(lost)
