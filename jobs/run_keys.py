"""The keys that a job which has begun may be given anew, and when: those that say what a run costs
and may cost only where a run begins.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cluster.job_log import generation, is_finished
from cluster.store import Store
from conf.errors import ConfigError
from conf.secrets import without_secrets

CHANGEABLE = ("cluster.", "storage.", "pricing.", "budget.", "triton.")
"""Keys that a resumed or retried job may be given anew: where it runs and what that costs, not what
it makes."""
RUN_KEYS = ("pricing.", "pricing=", "budget.")
"""Keys that say what a run costs and may cost."""
_CURRENCY = "pricing.currency="


def keys_taken(overrides: Sequence[str], *, finished: bool) -> list[str]:
    """Those of a run's keys that hold for the job that it finds."""
    refused = RUN_KEYS if finished else (_CURRENCY,)
    return [
        text
        for text in overrides
        if text.startswith((*CHANGEABLE, *RUN_KEYS)) and not text.startswith(refused)
    ]


def refuse_run_keys(store: Store, overrides: Sequence[str]) -> None:
    """Check that none is given where no run begins: what is written then is read by others, who
    know the prices of the last run alone.

    Raises:
        ConfigError: one is given, and what to do.
    """
    given = next((text for text in overrides if text.startswith(RUN_KEYS)), None)
    if given is None:
        return
    name = given.partition("=")[0]  # its value may be a secret
    where = shlex.quote(without_secrets(store.url))
    if is_finished(store, generation(store)):
        raise ConfigError(
            f"'{name}' is for a run, and none begins: the job at {where} is finished, with the "
            "prices and caps of its last run, and nothing was changed; leave the key out, or give "
            f"it to a new job; 'imagemill cost {where}' tells what this one cost"
        )
    raise ConfigError(
        f"'{name}' is for a run, and this command begins none; nothing was changed; leave the key "
        f"out, or go on with the job with: imagemill resume {where} {name}=…"
    )
