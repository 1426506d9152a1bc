"""How many workers a run has and wants, and whether it holds its deadline, said when it changes."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta

from cluster.crew_size import Staffing
from cluster.job_log import JobRecord
from cluster.ray_session import Resources
from cluster.start_timeout import start_timeout
from jobs.deadline import due_of, moment
from jobs.figures import duration, plural
from jobs.presence import Presence

log = logging.getLogger("imagemill")
_LOOK_EVERY_S = 2.0
_SAY_EVERY_S = 15.0
_REMIND_EVERY_S = 300.0
"""Who waits for machines wants to see that the run waits too."""
_LATE_LOOKS = 3
"""A rate that has only just been measured may be wrong: so often in a row it has to say so."""


class CrewNews:
    """Watches the workers of a run. All of it goes into the mark that ``imagemill status`` reads;
    the log has it where nodes may come or there is a deadline."""

    def __init__(self, job: JobRecord, size: Resources, presence: Presence) -> None:
        self._deadline = due_of(job)
        self._size = size
        self._patience_s = start_timeout(job.config.cluster, grows=size.grows).crew_s
        self._presence = presence
        self._tells = size.grows or self._deadline is not None
        self._look_due_s = self._say_due_s = self._remind_due_s = 0.0
        self._nobody_since_s: float | None = None
        self._said: tuple[int, bool] | None = None
        self._late = 0

    def show(self, staffing: Staffing | None) -> None:
        """Note where the crew is; called often."""
        now_s = time.monotonic()
        if staffing is None or now_s < self._look_due_s:
            return
        self._look_due_s = now_s + _LOOK_EVERY_S
        ends_in_s = staffing.wish.ends_in_s
        ends_at = None if ends_in_s is None else datetime.now(UTC) + timedelta(seconds=ends_in_s)
        text = self._words(staffing)
        self._presence.tell(text, ends_at)
        self._say(staffing, text, now_s)
        self._watch_deadline(staffing, ends_at)

    def _say(self, staffing: Staffing, text: str, now_s: float) -> None:
        """What is new; and now and then that nobody is there yet, and for how long."""
        if staffing.at_work or not staffing.waiting:
            self._nobody_since_s = None
        elif self._nobody_since_s is None:
            self._nobody_since_s, self._remind_due_s = now_s, now_s + _REMIND_EVERY_S
        news = (staffing.wish.workers, staffing.waiting > 0)
        reminds = self._nobody_since_s is not None and now_s >= self._remind_due_s
        if not self._tells or now_s < self._say_due_s or (news == self._said and not reminds):
            return
        if reminds and self._nobody_since_s is not None:
            text += f"; nobody for {duration(now_s - self._nobody_since_s)}"
            self._remind_due_s = now_s + _REMIND_EVERY_S
        self._said = news
        self._say_due_s = now_s + _SAY_EVERY_S
        log.info("workers: %s", text, extra={"event": "crew"})

    def _words(self, staffing: Staffing) -> str:
        waiting = ends = ""
        if staffing.waiting:
            waiting = (
                f", {staffing.waiting} waiting for an autoscaler to add machines "
                f"(each needs {self._size.shape})"
            )
            if not staffing.at_work:
                patience = f"{duration(self._patience_s)} (cluster.start_timeout_s)"
                ends = f"; without any the run ends after {patience}"
        wish = staffing.wish
        return f"{staffing.at_work} at work{waiting}; {wish.workers} wanted: {wish.why}{ends}"

    def _watch_deadline(self, staffing: Staffing, ends_at: datetime | None) -> None:
        """Warn once where the deadline cannot be held with as many as there may be."""
        wish = staffing.wish
        if self._deadline is None or ends_at is None or self._late >= _LATE_LOOKS:
            return
        late_s = (ends_at - self._deadline).total_seconds()
        self._late = self._late + 1 if late_s > 0 and wish.measured else 0
        if self._late < _LATE_LOOKS:
            return
        enough = "no number of workers could hold it"
        if wish.needed is not None:
            enough = f"about {plural(wish.needed, 'worker')} would hold it"
        log.warning(
            "job.deadline=%s cannot be held with %s (%s): the end is expected about %s, %s too "
            "late; %s; the run goes on",
            moment(self._deadline),
            plural(wish.workers, "worker"),
            wish.why,
            moment(ends_at.astimezone(self._deadline.tzinfo)),
            duration(late_s),
            enough,
            extra={"event": "deadline_missed"},
        )
