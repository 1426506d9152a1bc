"""Whether another driver is at work on an output.

Nothing is locked: a driver that is alive shows it, and one that does not for some time is taken for
dead.
"""

from __future__ import annotations

import logging
import shlex
import time

from cluster.driver_mark import DriverMark, read_mark
from cluster.job_log import last_run, run_ended
from cluster.store import Store
from conf.errors import OutputTaken
from conf.secrets import without_secrets
from jobs.presence import EVERY_S

log = logging.getLogger("imagemill")
WATCH_S = 3 * EVERY_S
_LOOKS = 12


def refuse_company(store: Store, *, watch_s: float = WATCH_S) -> int:
    """Watch the last run's driver, unless it said that it ended; takes seconds then. Returns the
    number of that run, 0 without any: whoever opens the one after it first may begin.

    A frozen driver is taken for dead. Should it wake, it stops when it sees the later run, and
    what it wrote meanwhile is fenced as any late worker's is.

    Raises:
        OutputTaken: it is alive.
    """
    last = last_run(store)
    if last is None:
        return 0
    if run_ended(store, last.run):
        return last.run
    log.info(
        "run %d never said that it ended; watching for %g s whether it is still at work",
        last.run,
        watch_s,
        extra={"event": "company"},
    )
    alive = watch(store, last.run, watch_s=watch_s)
    if alive is not None:
        raise _taken(store, alive)
    return last.run


def watch(store: Store, run: int, *, watch_s: float = WATCH_S) -> DriverMark | None:
    """The run's mark once it changes; None: it did not for so long, or the run said that it ended.

    A driver shows itself several times in that time; one that is silent is frozen or dead.
    """
    before = read_mark(store, run)
    deadline_s = time.monotonic() + watch_s
    while time.monotonic() < deadline_s:
        time.sleep(watch_s / _LOOKS)
        if run_ended(store, run):
            return None
        now = read_mark(store, run)
        if now is not None and now != before:
            return now
    return None


def _taken(store: Store, mark: DriverMark) -> OutputTaken:
    where = shlex.quote(without_secrets(store.url))
    return OutputTaken(
        f"run {mark.run} is at work on {where} since {mark.since}, on host {mark.host} as process "
        f"{mark.pid}; nothing was started; wait for its end, or stop it with "
        f"'imagemill cancel {where}' and resume then"
    )
