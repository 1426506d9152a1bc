"""A job's deadline, in a moment and in words: held, expected, or missed by how much."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from cluster import layout
from cluster.job_log import JobRecord
from cluster.store import Store
from conf.deadline import due
from conf.errors import ConfigError, CorruptOutput
from conf.schema import RunConfig
from jobs.figures import duration


def due_of(job: JobRecord) -> datetime | None:
    """When the job should be finished, the same in every run; None: it has no deadline."""
    deadline = job.config.job.deadline
    return None if deadline is None else due(deadline, datetime.fromisoformat(job.created_at))


def refuse_passed(config: RunConfig) -> RunConfig:
    """Check, for a job that has not begun, that its deadline is still to come; returns the
    configuration.

    Raises:
        ConfigError: how long ago it was.
    """
    if config.job.deadline is not None:
        now = datetime.now(UTC)
        passed_s = (now - due(config.job.deadline, now)).total_seconds()
        if passed_s >= 0:
            raise ConfigError(
                f"job.deadline={config.job.deadline} has passed, {duration(passed_s)} ago; nothing "
                "was started; give a later moment, or a time from the job's first start such as 6h"
            )
    return config


def deadline_words(job: JobRecord, store: Store, ends_at: datetime | None = None) -> str:
    """The deadline and how it stands; "" where there is none.

    Args:
        ends_at: when a run that is at work expects to be done; None: not known.

    Raises:
        CorruptOutput: the job is finished, and its manifest does not say when.
    """
    deadline = due_of(job)
    if deadline is None:
        return ""
    stands = _stands(deadline, _finished_at(store), ends_at, datetime.now(UTC))
    return f"{moment(deadline)}: {stands}"


def moment(when: datetime) -> str:
    """A moment for people, to the second, with its offset from UTC."""
    return when.isoformat(sep=" ", timespec="seconds")


def _stands(
    deadline: datetime, finished_at: datetime | None, ends_at: datetime | None, now: datetime
) -> str:
    if finished_at is not None:
        spare_s = (deadline - finished_at).total_seconds()
        return (
            f"held, by {duration(spare_s)}" if spare_s >= 0 else f"missed by {duration(-spare_s)}"
        )
    left_s = (deadline - now).total_seconds()
    if left_s < 0:
        return f"passed {duration(-left_s)} ago"
    if ends_at is None:
        return f"in {duration(left_s)}"
    spare_s = (deadline - ends_at).total_seconds()
    about = f"the end is expected about {moment(ends_at.astimezone(deadline.tzinfo))}"
    return f"{about}, {duration(abs(spare_s))} {'before' if spare_s >= 0 else 'too late'}"


def _finished_at(store: Store) -> datetime | None:
    """When all rows of the job were done for the first time; a retry comes after that."""
    key = layout.manifest(0)
    data = store.get(key)
    if data is None:
        return None
    try:
        return datetime.fromisoformat(json.loads(data)["finished_at"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptOutput(f"{key} is damaged: {error}") from error
