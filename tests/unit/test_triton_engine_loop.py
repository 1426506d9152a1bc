"""The loop that keeps an engine busy for others: who enters when, who leaves, what is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from random import Random

import pytest

from operators.engine import Engine, ImageFailure, ImageResult
from operators.request import Request
from operators.triton.engine_loop import Answer, Cancelled, EngineLoop, EngineLost, Ticket
from tests.virtual_engine import VirtualEngine

PATIENCE_S = 30.0
MANY = 10_000


class SteppedEngine(VirtualEngine):
    """Ticks when it is let; remembers which rows each tick had."""

    def __init__(self) -> None:
        super().__init__({1: 1.0}, Random(0), max_batch=8)
        self.let = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.inside: set[int] = set()
        self.ticks: list[set[int]] = []
        self.breaks = False

    def admit(self, requests: Sequence[Request]) -> None:
        self.inside |= {request.row_id for request in requests}
        super().admit(requests)

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        self.inside = {row for row in self.inside if not unwanted(short(row))}
        return super().discard(unwanted)

    def tick(self, *, more_to_come: bool = False) -> list[ImageResult | ImageFailure]:
        self.asked.release()
        assert self.let.acquire(timeout=PATIENCE_S)
        if self.breaks:
            raise RuntimeError("no device")
        self.ticks.append(set(self.inside))
        outcomes = super().tick(more_to_come=more_to_come)
        self.inside -= {outcome.request.row_id for outcome in outcomes}
        return outcomes


class Asked:
    """A request, its answer to come, and whether somebody still waits for it."""

    def __init__(self, row: int, *, steps: int = 1) -> None:
        self.gone = threading.Event()
        self.answer: Future[Answer] = Future()
        self.ticket = Ticket(
            request=short(row, steps=steps),
            cancelled=self.gone.is_set,
            answer=self.answer.set_result,
        )

    def came(self) -> Answer:
        return self.answer.result(PATIENCE_S)


def short(row: int, *, steps: int = 1) -> Request:
    return Request(
        image_id=str(row),
        row_id=row,
        image_index=0,
        prompt="a",
        negative_prompt="",
        seed=0,
        width=64,
        height=64,
        steps=steps,
        guidance_scale=1.0,
        sampler="ddim",
    )


@pytest.fixture
def engine() -> SteppedEngine:
    return SteppedEngine()


@pytest.fixture
def loop(engine: SteppedEngine) -> Iterator[EngineLoop]:
    """Takes two requests at a time."""
    running = EngineLoop(lambda: engine, held=2)
    assert running.start() == engine.info
    yield running
    engine.let.release(MANY)
    running.close()


def test_a_later_request_enters_the_running_batch(engine: SteppedEngine, loop: EngineLoop) -> None:
    long, late = Asked(1, steps=50), Asked(2)
    loop.submit([long.ticket])
    engine.let.release()
    loop.submit([late.ticket])
    engine.let.release(3)
    assert isinstance(late.came(), ImageResult)
    assert not long.answer.done()
    assert {1, 2} in engine.ticks


def test_a_cancelled_request_makes_room(engine: SteppedEngine, loop: EngineLoop) -> None:
    long, other, third = Asked(1, steps=MANY), Asked(2, steps=MANY), Asked(3)
    loop.submit([long.ticket, other.ticket])
    long.gone.set()
    engine.let.release()
    loop.submit([third.ticket])
    engine.let.release(3)
    assert isinstance(long.came(), Cancelled)
    assert isinstance(third.came(), ImageResult)
    assert {2, 3} in engine.ticks
    other.gone.set()


def test_no_more_requests_are_taken_than_it_may_hold(
    engine: SteppedEngine, loop: EngineLoop
) -> None:
    asked = [Asked(row, steps=2) for row in range(5)]
    hands_over = threading.Thread(target=loop.submit, args=([one.ticket for one in asked],))
    hands_over.start()
    engine.let.release(MANY)
    assert [type(one.came()) for one in asked] == [ImageResult] * 5
    hands_over.join(PATIENCE_S)
    assert max(map(len, engine.ticks)) == 2


def test_a_lost_engine_is_told_to_all_who_wait_and_to_all_who_come(
    engine: SteppedEngine, loop: EngineLoop
) -> None:
    inside, arrived, held_back, *late = (Asked(row, steps=2) for row in range(6))
    loop.submit([inside.ticket])
    assert engine.asked.acquire(timeout=PATIENCE_S)
    loop.submit([arrived.ticket])
    hands_over = threading.Thread(target=loop.submit, args=([held_back.ticket],))
    hands_over.start()
    engine.breaks = True
    engine.let.release()
    lost = EngineLost(reason="RuntimeError: no device")
    assert [one.came() for one in (inside, arrived, held_back)] == [lost] * 3
    hands_over.join(PATIENCE_S)
    comes = threading.Thread(target=loop.submit, args=([one.ticket for one in late],), daemon=True)
    comes.start()
    assert [one.came() for one in late] == [lost] * 3


def test_closing_makes_what_was_taken(engine: SteppedEngine, loop: EngineLoop) -> None:
    asked = [Asked(row, steps=3) for row in range(2)]
    loop.submit([one.ticket for one in asked])
    closing = threading.Thread(target=loop.close)
    closing.start()
    engine.let.release(MANY)
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert [type(one.answer.result(0)) for one in asked] == [ImageResult] * 2


def test_an_engine_that_does_not_load_is_told_where_it_was_started() -> None:
    def load() -> Engine:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        EngineLoop(load, held=1).start()
