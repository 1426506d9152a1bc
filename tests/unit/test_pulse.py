"""The heart of a worker: it beats and stamps whatever the store does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from shard_records import PRICE

from cluster import pulse as pulse_module
from cluster.coordinator import BeatReply, WorkerProgress
from cluster.lifetime import Lifetime
from cluster.pulse import Pulse
from cluster.reading import Reading, nobody_watches
from cluster.records import stamp_from_json
from cluster.store import Store
from cluster.worker_state import WorkerState
from conf.errors import ImageMillError, StoreFull, StoreRefused, StoreUnavailable
from tests.stores import ONCE

PATIENCE_S = 20.0


class Link:
    """Counts beats."""

    def __init__(self) -> None:
        self.beats = threading.Semaphore(0)

    def beat(self, worker: str, progress: WorkerProgress) -> BeatReply:
        self.beats.release()
        return BeatReply(revoked=(), drain=False, preempted=False)

    def await_beats(self, count: int) -> None:
        for _ in range(count):
            assert self.beats.acquire(timeout=PATIENCE_S), "the heart stands still"


def new_pulse(
    store: Store,
    link: Link,
    state: WorkerState,
    told: Callable[[Reading], None] = nobody_watches,
) -> Pulse:
    return Pulse(
        state,
        Lifetime(worker="w1", run=1, node="here", gpus="", price=PRICE),
        store=store,
        link=link,  # type: ignore[arg-type]
        worker="w1",
        heartbeat_s=0.01,
        stats=lambda: None,
        engine=lambda: None,
        told=told,
    )


@pytest.mark.parametrize("failure", [StoreUnavailable, StoreRefused, StoreFull])
def test_a_stamp_that_the_store_does_not_take_neither_stops_the_heart_nor_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[ImageMillError]
) -> None:
    monkeypatch.setattr(pulse_module, "_STAMP_EVERY_S", 0.0)

    class Refusing(Store):
        def put(self, key: str, data: bytes) -> None:
            raise failure(key)

    link, state = Link(), WorkerState()
    pulse = new_pulse(Refusing(str(tmp_path), ONCE), link, state)
    thread = threading.Thread(target=pulse.run)
    thread.start()
    link.await_beats(5)
    pulse.stop()
    thread.join(PATIENCE_S)
    assert state.failure is None


def test_the_heart_beats_while_the_store_keeps_the_closing_stamp_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse_module, "_STAMP_EVERY_S", 0.0)
    waiting, answer = threading.Event(), threading.Event()

    class Slow(Store):
        def put(self, key: str, data: bytes) -> None:
            if stamp_from_json(data, key).closed:
                waiting.set()
                assert answer.wait(PATIENCE_S)
            super().put(key, data)

    link, store = Link(), Slow(str(tmp_path), ONCE)
    pulse = new_pulse(store, link, WorkerState())
    beating, closing = threading.Thread(target=pulse.run), threading.Thread(target=pulse.close)
    beating.start()
    closing.start()
    assert waiting.wait(PATIENCE_S)
    link.await_beats(10)
    answer.set()
    closing.join(PATIENCE_S)
    link.await_beats(5)
    pulse.stop()
    beating.join(PATIENCE_S)
    stamp = stamp_from_json(store.get("workers/w1.json") or b"", "workers/w1.json")
    assert stamp.closed, "no later stamp took the place of the last one"


def test_whoever_watches_hears_of_queues_and_of_what_the_store_was_asked(tmp_path: Path) -> None:
    told: list[Reading] = []
    store, state = Store(str(tmp_path), ONCE), WorkerState()
    pulse = new_pulse(store, Link(), state, told.append)
    state.begin_upload()
    store.traffic.retried()
    store.traffic.add(writes=2)
    pulse.beat()
    (reading,) = told
    assert reading.queues == {"requests": 0, "engine": 0, "uploads": 1, "commits": 0}
    assert (reading.retries, reading.requests.writes) == (1, 2)
    assert reading.progress.made == 1
