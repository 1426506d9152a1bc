"""When a job should be finished: a moment, or a time from its first start. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from conf.errors import ConfigError

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _UNITS))
_LONGEST = timedelta(days=3650)
_EXPECTED = (
    "expected a moment with its offset, such as 2026-11-23T18:00:00+01:00 or 2026-11-23T17:00:00Z, "
    "or a time from the job's first start, such as 6h, 90m or 1d12h"
)


def due(text: str, started: datetime) -> datetime:
    """The moment that ``job.deadline`` means for a job that first started then; the same in every
    run of the job.

    Raises:
        ConfigError: the text means no moment.
    """
    parsed = parse_deadline(text)
    return parsed if isinstance(parsed, datetime) else started + parsed


def parse_deadline(text: str) -> datetime | timedelta:
    """A moment with its offset from UTC, or a time above 0.

    Raises:
        ConfigError: what was found and expected.
    """
    lasting = _duration(text)
    if lasting is not None:
        if not timedelta() < lasting <= _LONGEST:
            raise ConfigError(
                f"job.deadline is '{text}' from the job's first start; expected a time above 0 and "
                f"of at most {_LONGEST.days} days"
            )
        return lasting
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"job.deadline is '{text}'; {_EXPECTED}") from None
    if moment.tzinfo is None:
        raise ConfigError(
            f"job.deadline is '{text}', which says no offset from UTC, so that it means "
            f"another moment on another machine; {_EXPECTED}"
        )
    return moment


def _duration(text: str) -> timedelta | None:
    found = _DURATION.fullmatch(text.strip())
    given = {unit: value for unit, value in found.groupdict().items() if value} if found else {}
    if not given:
        return None
    try:
        return timedelta(**{_UNITS[unit]: float(value) for unit, value in given.items()})
    except OverflowError:
        return timedelta.max
