"""SIGTERM as a call in a thread of its own, whatever the main thread is doing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue


class TermSignal:
    """Takes SIGTERM from its construction on, which must be in a process's main thread. Ray's own
    handler, which ends an actor's process at once, is replaced.

    The handler runs between two instructions of the main thread, which may hold any lock: it only
    puts into a queue that allows for that.
    """

    def __init__(self) -> None:
        self._arrived: SimpleQueue[int] = SimpleQueue()
        signal.signal(signal.SIGTERM, lambda number, frame: self._arrived.put(number))

    def watch(self, act: Callable[[], None]) -> None:
        """Call ``act`` once, in another thread, when the signal comes or if it came already."""

        def wait() -> None:
            self._arrived.get()
            act()

        threading.Thread(target=wait, name="term-signal", daemon=True).start()
