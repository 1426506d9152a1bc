"""What the report says of a quote: each of its numbers beside what it came to. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.figures import duration, format_money, plural
from jobs.quote.against import Against, Measure, verdict
from jobs.quote.estimate import Interval


def quoted(found: Against | None, currency: str) -> dict[str, Any] | None:
    """What was quoted beside what it came to; None where nothing was."""
    if found is None:
        return None
    shown = [
        ("Cost", found.cost, lambda nano: format_money(round(nano), currency)),
        ("Time of all workers", found.worker_seconds, duration),
        ("Time", found.seconds, duration),
    ]
    return {
        "asked": found.asked,
        "offer": found.offer.name if found.offer else "",
        "quoted_workers": plural(found.offer.workers, "worker") if found.offer else "",
        "workers": found.workers,
        "why": found.why,
        "lines": [_measured(name, one, say) for name, one, say in shown if one is not None],
    }


def _measured(name: str, one: Measure, say: Callable[[float], str]) -> dict[str, Any]:
    return {
        "name": name,
        "quoted": say(one.quoted.middle),
        "interval": _interval(one.quoted, say),
        "came_to": say(one.came_to),
        "verdict": verdict(one),
        "state": {True: "done", False: "open", None: "soft"}[one.inside],
    }


def _interval(quoted: Interval, say: Callable[[float], str]) -> list[str]:
    """The ends, to be broken between where a phone is too narrow."""
    if quoted.low is None or quoted.high is None:
        return ["spread not known"]
    return [say(quoted.low), f"to {say(quoted.high)}"]
