"""Asking a job to stop, and taking that back: marks in its output, which whoever runs it looks for.

Whoever cancels a job means every try of it: one that a machine starts by itself does not go on.
"""

from __future__ import annotations

import shlex

from cluster.job_log import (
    ask_cancel,
    cancel_asked,
    generation,
    is_finished,
    last_run,
    run_ended,
    take_back_cancel,
)
from cluster.store import Store
from conf.errors import Cancelled
from conf.secrets import without_secrets


def cancel(store: Store, output: str) -> str:
    """Ask the last run to stop, or no other to begin by itself; returns what to tell."""
    last = last_run(store)
    if last is None or is_finished(store, generation(store)):
        return f"{output}: nothing to cancel, no run is under way"
    ask_cancel(store, last.run)
    where = shlex.quote(output)
    how = (
        f"Continue with: imagemill resume {where}; 'imagemill run --resume', as a RayJob calls it, "
        f"does not go on before that or before: imagemill cancel {where} --undo"
    )
    if run_ended(store, last.run):
        return f"{output}: no run is under way, and none begins by itself now. {how}"
    return (
        f"{output}: run {last.run} was asked to stop; if it is still alive, it commits what "
        f"is finished first, and 'imagemill status' tells when it has ended. {how}"
    )


def take_back(store: Store, output: str) -> str:
    """Let the job go on again; returns what to tell."""
    last = last_run(store)
    if last is None or not cancel_asked(store, last.run):
        return f"{output}: nothing to take back, the last run was not cancelled"
    take_back_cancel(store, last.run)
    return (
        f"{output}: taken back; 'imagemill run --resume' goes on with the job again. Run "
        f"{last.run} itself stops all the same if it has heard of it"
    )


def refuse_cancelled(store: Store) -> None:
    """Before a try that may be nobody's wish.

    Raises:
        Cancelled: the last run was asked to stop, and nobody has taken that back.
    """
    last = last_run(store)
    if last is None or not cancel_asked(store, last.run):
        return
    where = shlex.quote(without_secrets(store.url))
    raise Cancelled(
        f"run {last.run} of {where} was cancelled, so that --resume does not go on with the job; "
        f"nothing was started; go on with: imagemill resume {where}, or let this command do so "
        f"again with: imagemill cancel {where} --undo"
    )
