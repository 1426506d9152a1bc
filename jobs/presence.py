"""A driver's presence on an output: shows that it lives, and sees who wants it to stop.

A later driver watches the mark that this one replaces (``company``).
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import TracebackType

from cluster.driver_mark import DriverMark, write_mark
from cluster.job_log import cancel_asked, run_opened
from cluster.records import RunRecord
from cluster.store import Store
from conf.errors import ImageMillError
from conf.schema import RunConfig

log = logging.getLogger("imagemill")
EVERY_S = 2.0
_FAREWELL_S = 5.0
_SILENCE_S = 10.0
"""A store that is silent for so long is worth a word."""


class Presence:
    """A thread that talks to the store in the driver's place, and one that tells when it is not
    answered; a context manager.

    A store that does not answer neither ends the run nor makes anybody wait: no mark is written,
    and no answer means that nobody asked to stop.
    """

    def __init__(self, config: RunConfig, record: RunRecord, *, every_s: float = EVERY_S) -> None:
        self._store = Store.of(config, patience_s=0)
        self._mark = DriverMark(
            run=record.run, seq=0, host=platform.node(), pid=os.getpid(), since=record.started_at
        )
        self._every_s = every_s
        self._patience_s = config.storage.patience_s
        self._heard_s = time.monotonic()
        self._stop_reason: str | None = None
        self._told: tuple[str, str | None] = ("", None)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"presence-{work.__name__}", daemon=True)
            for work in (self._talk, self._listen)
        ]

    def __enter__(self) -> Presence:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_FAREWELL_S)

    def tell(self, crew: str, ends_at: datetime | None) -> None:
        """What the next marks say: the workers in words, and when the end is expected."""
        self._told = (crew, ends_at.isoformat(timespec="seconds") if ends_at else None)

    def stop_reason(self) -> str | None:
        """Why the run has to stop, as far as the store told; None: it does not."""
        return self._stop_reason

    def _talk(self) -> None:
        while not self._over.is_set():
            answers = [self._try(talk) for talk in (self._show, self._see)]
            if any(answers):
                self._heard_s = time.monotonic()
            self._over.wait(self._every_s)

    def _try(self, talk: Callable[[], None]) -> bool:
        try:
            talk()
        except ImageMillError as error:
            log.debug("no answer from the store: %s", error, extra={"event": "no_answer"})
            return False
        return True

    def _listen(self) -> None:
        """Say once that the store is away, for the run waits silently, and once that it is back.

        A store that is frozen keeps the other thread waiting for its answer.
        """
        away_since_s: float | None = None
        while not self._over.wait(self._every_s):
            heard_s = self._heard_s
            silent_s = time.monotonic() - heard_s
            if away_since_s is None and silent_s >= _SILENCE_S:
                away_since_s = heard_s
                log.warning(
                    "the store has not answered for %.0f s; the run goes on once it does, within "
                    "storage.patience_s=%g",
                    silent_s,
                    self._patience_s,
                    extra={"event": "store_away"},
                )
            elif away_since_s is not None and heard_s > away_since_s:
                log.info(
                    "the store answers again after %.0f s",
                    heard_s - away_since_s,
                    extra={"event": "store_back"},
                )
                away_since_s = None

    def _see(self) -> None:
        run = self._mark.run
        if run_opened(self._store, run + 1):
            self._stop_reason = f"run {run + 1} has taken over"
        elif cancel_asked(self._store, run):
            self._stop_reason = "cancelled"

    def _show(self) -> None:
        crew, ends_at = self._told
        self._mark = replace(self._mark, seq=self._mark.seq + 1, crew=crew, ends_at=ends_at)
        write_mark(self._store, self._mark)
