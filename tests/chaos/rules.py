"""What the proxy does to which requests. Pure: a request in, an action or nothing out.

Knows nothing of sockets. Rules are looked at in the order in which they were added; the first that
matches and is not used up decides.
"""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it arrived: ``key`` is the object's, without the bucket, ``query`` as sent.

    ``client`` is the address and port that it came from.
    """

    number: int
    method: str
    key: str
    query: str
    body: bytes
    if_absent: bool
    client: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer with an error instead of asking the store: the request did not land."""

    status: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Let the request wait before it is forwarded."""

    seconds: float


@dataclass(frozen=True, slots=True)
class LoseRequest:
    """Reset the connection instead of asking the store: the request did not land."""


@dataclass(frozen=True, slots=True)
class LoseReply:
    """Forward, then reset the connection: the request landed and the client cannot know."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Forward twice and answer with the second reply, as a network that repeats a packet."""


class Hold:
    """A barrier: a request that comes here waits until somebody says what becomes of it.

    The waiting request outlives its client: one whose process was killed may still be forwarded. A
    client that grows tired of waiting and asks again waits here again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._caught: list[Asked] = []
        self._forward: bool | None = None

    def catch(self, asked: Asked) -> None:
        """A request arrived; called by the proxy."""
        with self._changed:
            self._caught.append(asked)
            self._changed.notify_all()

    def holds(self, asked: Asked) -> bool:
        """Whether this very request, sent before, still waits here."""
        wanted = (asked.method, asked.key, asked.body)
        with self._changed:
            same = ((one.method, one.key, one.body) == wanted for one in self._caught)
            return self._forward is None and any(same)

    @property
    def decided(self) -> bool | None:
        """True: forward; False: drop; None: not yet known."""
        with self._changed:
            return self._forward

    def caught(self, timeout_s: float = 60.0) -> Asked:
        """Wait for the first request that came here.

        Raises:
            AssertionError: none came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._caught, timeout_s):
                raise AssertionError(f"no request came to be held within {timeout_s:g} s")
            return self._caught[0]

    def forward(self) -> None:
        """Let what is held, and what still comes, go on to the store."""
        self._decide(True)

    def drop(self) -> None:
        """Reset the connections of what is held, and of what still comes."""
        self._decide(False)

    def _decide(self, forward: bool) -> None:
        with self._changed:
            self._forward = forward


Action = Answer | Delay | LoseRequest | LoseReply | Duplicate | Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests are meant: ``key`` and ``body`` are searched for as regular expressions."""

    method: str
    key: str
    body: str = ""

    def fits(self, asked: Asked) -> bool:
        """Whether the request is meant; ``*`` is every method."""
        return (
            self.method in ("*", asked.method)
            and re.search(self.key, asked.key) is not None
            and (not self.body or re.search(self.body.encode(), asked.body) is not None)
        )


@dataclass(slots=True, kw_only=True)
class Rule:
    """``times``: how often it may act, None always. ``share``: of the matching requests, by chance
    drawn from the board's seed."""

    match: Match
    action: Action
    times: int | None = None
    share: float = 1.0
    acted: int = 0


@dataclass(slots=True)
class RuleBoard:
    """The rules in force. Safe to use from several threads."""

    seed: int = 0
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def add(self, rule: Rule) -> Rule:
        """Put a rule behind those in force."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Take all rules back, letting go on what is held."""
        with self._lock:
            gone, self._rules = self._rules, []
        for rule in gone:
            if isinstance(rule.action, Hold) and rule.action.decided is None:
                rule.action.forward()

    def action_for(self, asked: Asked) -> Action | None:
        """What to do to a request; None: forward it."""
        with self._lock:
            for rule in self._rules:
                if isinstance(rule.action, Hold) and rule.action.holds(asked):
                    return rule.action
                if rule.times is not None and rule.acted >= rule.times:
                    continue
                if rule.match.fits(asked) and self._random.random() < rule.share:
                    rule.acted += 1
                    return rule.action
        return None
