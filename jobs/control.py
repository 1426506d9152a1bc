"""How a run is stopped from outside: Ctrl-C, SIGTERM, and ``imagemill cancel``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class SignalControl:
    """First signal: commit what is done and stop. Second: stop at once. After the work the first
    one interrupts. A context manager.

    Handlers are installed only in the main thread of a process; elsewhere signals stay as they are.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._cancelled: Callable[[], str | None] = lambda: None
        self._notify = notify
        self._count = 0
        self._over = False
        self._before: dict[signal.Signals, Any] = {}

    def watch(self, cancelled: Callable[[], str | None]) -> None:
        """Ask ``cancelled``, which answers at once, from now on why the store stopped the run."""
        self._cancelled = cancelled

    def __enter__(self) -> SignalControl:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals, also back from a library that took them meanwhile, as Ray does."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, self._on_signal)
            self._before.setdefault(number, before)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def drain(self) -> str | None:
        """Why to stop, or None."""
        return "interrupted" if self._count else None

    @property
    def abort(self) -> bool:
        """Whether to stop at once."""
        return self._count > 1

    def cancelled(self) -> str | None:
        """Why the run was stopped through the store, or None."""
        return self._cancelled()

    def summing_up(self) -> None:
        """The work is over and nobody looks at ``drain`` any more: from now on a signal interrupts,
        so that nobody has to wait for a store that is away."""
        self._over = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            raise KeyboardInterrupt(
                "what was made is committed; 'imagemill resume OUTPUT' does the rest"
            )
        self._count += 1
        if self._count == 1:
            self._notify("stopping: committing what is finished; once more to stop at once")
        else:
            self._notify("stopping now")
