"""Which of several servers gets the next request, and which are left out for now. Pure: time and
chance come with the calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


def pause_s(failures: int, random: Random) -> float:
    """How long to wait after so many failures in a row: doubling, anywhere in its upper half, so
    that clients which failed together do not come back together."""
    longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 16))
    return longest_s * random.uniform(0.5, 1.0)


@dataclass(slots=True, kw_only=True, eq=False)
class Endpoint:
    """One server, as its answers show it.

    ``healthy`` false: it gets no requests until a probe was answered. ``alone``: the one request
    that it has may kill its model, so it gets no other. ``limit`` is how many it gets at a time.
    ``rests_until_s``: it was too busy to take more. ``unwell_since_s`` and ``refusing_since_s``
    are None while it is well and while it takes requests.
    """

    name: str
    limit: int = 1
    healthy: bool = True
    in_flight: int = 0
    alone: bool = False
    failures: int = 0
    refusals: int = 0
    rests_until_s: float = -math.inf
    heard_at_s: float = -math.inf
    unwell_since_s: float | None = None
    refusing_since_s: float | None = None

    def free(self, now_s: float) -> bool:
        """Whether it takes another request."""
        return (
            self.healthy
            and not self.alone
            and self.in_flight < self.limit
            and now_s >= self.rests_until_s
        )

    def heard(self, now_s: float) -> None:
        """It made an image, or said why not."""
        self.healthy = True
        self.failures = self.refusals = 0
        self.unwell_since_s = self.refusing_since_s = None
        self.heard_at_s = now_s

    def refused(self, now_s: float, random: Random) -> None:
        """It takes no more requests now."""
        self.rests_until_s = now_s + pause_s(self.refusals, random)
        self.refusals += 1
        if self.refusing_since_s is None:
            self.refusing_since_s = now_s

    def crowded(self, now_s: float, random: Random) -> None:
        """It makes images, but others' all the time."""
        self.healthy = True
        self.failures = 0
        self.unwell_since_s = None
        self.refused(now_s, random)

    def failed(self, now_s: float) -> None:
        """It does not answer, or not as it should."""
        self.healthy = False
        self.failures += 1
        if self.unwell_since_s is None:
            self.unwell_since_s = now_s

    def useless_s(self, now_s: float) -> float:
        """For how long it has made nothing for us, through no fault of the rows; 0: it may."""
        since_s = self.unwell_since_s
        if self.healthy:
            since_s = None if self.in_flight else self.refusing_since_s
        return 0.0 if since_s is None else now_s - since_s


def choose(endpoints: Sequence[Endpoint], now_s: float, *, alone: bool) -> Endpoint | None:
    """The server with the smallest part of its limit taken; None while none takes a request.

    Args:
        alone: the request must share its server with no other of ours.
    """
    free = [endpoint for endpoint in endpoints if endpoint.free(now_s)]
    if alone:
        free = [endpoint for endpoint in free if not endpoint.in_flight]
    return min(free, key=lambda endpoint: endpoint.in_flight / endpoint.limit, default=None)


def rest_s(endpoints: Sequence[Endpoint], now_s: float) -> float | None:
    """When the first server that only rests is to be asked again; None: no one rests."""
    ends = [e.rests_until_s for e in endpoints if e.healthy and e.rests_until_s > now_s]
    return min(ends) - now_s if ends else None
