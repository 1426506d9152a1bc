"""Who is told when half, most and all of a job's budget is used: a webhook or a command."""

from __future__ import annotations

import json
import logging
import shlex
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any

from cluster.budget import Caps, Spent
from cluster.coordinator import Snapshot
from cluster.job_log import JobRecord
from cluster.money import as_decimal
from conf.alert_target import is_url
from conf.secrets import without_secrets

log = logging.getLogger("imagemill")
LEVELS = (50, 80, 100)
"""Percent. The last is told when the run stops for its budget, whatever share is used by then."""
_PATIENCE_S = 30.0


class BudgetAlerts:
    """Tells each level once; those that earlier runs had reached were told then. A context manager:
    leaving waits for what is on its way. Nobody else waits for it, and no failure ends a run."""

    def __init__(self, job: JobRecord, caps: Caps, settled: Spent) -> None:
        self._job = job
        self._caps = caps
        self._target = job.config.budget.alert
        self._threads: list[threading.Thread] = []
        used = caps.share(settled) * 100
        self._left = [level for level in LEVELS if level > used] if self._target else []

    def __enter__(self) -> BudgetAlerts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def see(self, snapshot: Snapshot) -> None:
        """Tell the levels that are reached by now."""
        used = min(self._caps.share(snapshot.spent) * 100, 99)
        while self._left and self._left[0] <= used:
            self._tell(self._left.pop(0), snapshot)
        if snapshot.over_budget and self._left:
            self._left = []
            self._tell(LEVELS[-1], snapshot)

    def _tell(self, level: int, snapshot: Snapshot) -> None:
        data = json.dumps(self._message(level, snapshot)).encode()
        thread = threading.Thread(target=self._send, args=(data,), name="alert", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _message(self, level: int, snapshot: Snapshot) -> dict[str, object]:
        config, spent = self._job.config, snapshot.spent
        text = f"has used {level} % of its budget: {self._caps.used(spent)}"
        if level == LEVELS[-1]:
            text = f"was stopped by its budget: {snapshot.over_budget}"
        return {
            "text": f"imagemill job '{config.job.name}' {text}",
            "level": level,
            "job": config.job.name,
            "project": config.job.project,
            "output": without_secrets(config.output.path),
            "spent": None if snapshot.unpriced else f"{as_decimal(spent.nano):f}",
            "max_cost": config.budget.max_cost,
            "currency": self._caps.currency,
            "hours": spent.ns / (3600 * 10**9),
            "max_hours": config.budget.max_hours,
            "stopped": snapshot.over_budget,
        }

    def _send(self, data: bytes) -> None:
        target = self._target or ""
        try:
            if is_url(target):
                _post(target, data)
            else:
                subprocess.run(
                    shlex.split(target),
                    input=data,
                    timeout=_PATIENCE_S,
                    check=True,
                    capture_output=True,
                )
        except Exception as error:  # noqa: BLE001 - the end of this thread: nobody else would hear
            log.warning(
                "budget.alert could not be told: %s", _of(error), extra={"event": "alert_failed"}
            )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, data: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=_PATIENCE_S):
        pass


def _of(error: BaseException) -> str:
    """Without the target, which may be a secret: what an error says of itself may repeat it."""
    if isinstance(error, urllib.error.HTTPError):
        moved = "; redirects are not followed, give the last URL" if error.code // 100 == 3 else ""
        return f"status {error.code}{moved}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"the command ended with status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"the command took longer than {_PATIENCE_S:g} s"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _of(error.reason)
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return error.strerror
    return type(error).__name__
