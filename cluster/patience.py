"""Trying again: exponential pauses with full jitter, for as long as somebody is patient."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from cluster.store_errors import FAILURES
from conf.errors import CommitUnknown, StoreUnavailable

T = TypeVar("T")
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


def patiently(
    operation: Callable[[], T],
    *,
    patience_s: float,
    failure_of: Callable[[Exception], Exception],
    retrying: Callable[[], None] = lambda: None,
) -> T:
    """Run ``operation`` until it succeeds, fails for good, or ``patience_s`` passed since it failed
    first. ``retrying`` is called before each try but the first.

    Raises:
        what ``failure_of`` makes of any of ``FAILURES``; what may pass is StoreUnavailable.
        CommitUnknown: the operation raised it to the end.
    """
    deadline_s: float | None = None
    longest_s = _FIRST_PAUSE_S
    while True:
        try:
            return operation()
        except FAILURES as error:
            failure = failure_of(error)
            failure.__cause__ = error
        except (StoreUnavailable, CommitUnknown) as error:
            failure = error
        now_s = time.monotonic()
        if deadline_s is None:
            deadline_s = now_s + patience_s
        if not isinstance(failure, StoreUnavailable | CommitUnknown) or now_s >= deadline_s:
            raise failure
        time.sleep(min(random.uniform(0, longest_s), deadline_s - now_s))
        longest_s = min(_LONGEST_PAUSE_S, longest_s * 2)
        retrying()
