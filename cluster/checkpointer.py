"""The checkpointer: collects the seals of a run and writes them down now and then.

Owns a thread and nothing that is not in the store already; whatever fails here costs a later reader
some time and the run nothing.
"""

from __future__ import annotations

import logging
import threading
import time

import pyarrow as pa

from cluster.checkpoint import Checkpoint, add_checkpoint
from cluster.sealed_shard import SealedShard
from cluster.store import Store
from conf.errors import ImageMillError

log = logging.getLogger("imagemill")
MOST_SEALS = 16_384
"""So many seals wait at most; they are written at once, and others are left to their records."""
_REST = 20
"""It rests so many times longer than the last checkpoint took to write."""


class Checkpointer:
    """Safe to call from several threads; ``add`` never waits for the store.

    Args:
        every_s: how long it waits between two checkpoints, if anything was sealed.
    """

    def __init__(self, store: Store, *, every_s: float) -> None:
        self._store = store
        self._every_s = every_s
        self._seals: dict[int, SealedShard] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._newest: Checkpoint | None = None
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)
        self._thread.start()

    def add(self, seal: SealedShard) -> None:
        """A shard surely is sealed."""
        with self._changed:
            if len(self._seals) < MOST_SEALS:
                self._seals[seal.shard_id] = seal
                self._changed.notify_all()

    def close(self) -> None:
        """Write what is left and stop. Safe to repeat."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        pause_s = self._every_s
        closed = False
        while not closed:
            closed = self._await_due(pause_s)
            started_s = time.monotonic()
            self._write()
            pause_s = max(self._every_s, _REST * (time.monotonic() - started_s))

    def _await_due(self, pause_s: float) -> bool:
        """Wait until it is time to write; returns whether it is the last time."""
        with self._changed:
            before = len(self._seals)

            def full() -> bool:
                return before < MOST_SEALS <= len(self._seals)

            self._changed.wait_for(lambda: self._closed or full(), pause_s)
            return self._closed

    def _write(self) -> None:
        with self._changed:
            seals = list(self._seals.values())
        if not seals:
            return
        try:
            self._newest = add_checkpoint(self._store, seals, known=self._newest)
        except (ImageMillError, pa.ArrowException, OSError) as error:
            log.warning(
                "no checkpoint was written: %s", error, extra={"event": "checkpoint_missed"}
            )
            return
        with self._changed:
            for seal in seals:
                if self._seals.get(seal.shard_id) is seal:
                    del self._seals[seal.shard_id]
