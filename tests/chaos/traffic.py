"""What went through the proxy, and what can be proved from it."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

REPLACED = re.compile(
    r"/(?:workers/|drivers/|ends/|cancels/|costs/|ledger/workers\.parquet$|"
    r"(?:manifest\.json|README\.md|report\.html|contact_sheet\.png|metadata\.parquet)$|"
    r"\.probe-)"
)
"""What is derived from other objects, or a sign of life: the only things ever written anew."""
_IMAGE = re.compile(r"/images/[^/]+/(\d+-\d+)[^/]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request and what became of it.

    ``status`` is the store's answer: None when the store was not asked or gave none. ``action``
    names what the proxy did to it, empty where it only forwarded.
    """

    number: int
    method: str
    key: str
    query: str
    sha256: str
    status: int | None
    action: str

    @property
    def landed(self) -> bool:
        """Whether the store said that it did what was asked."""
        return self.status is not None and 200 <= self.status < 300


class Traffic:
    """Every request, in the order in which they were done. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """A request is done."""
        with self._changed:
            self._seen.append(seen)
            self._changed.notify_all()

    def below(self, prefix: str) -> list[Seen]:
        """The requests so far for keys that begin so."""
        with self._changed:
            return [seen for seen in self._seen if seen.key.startswith(prefix)]

    def await_count(
        self, wanted: Callable[[Seen], bool], count: int, what: str, timeout_s: float
    ) -> None:
        """Wait until so many requests are done that are ``wanted``.

        Raises:
            AssertionError: they were not in time; ``what`` names them.
        """
        with self._changed:
            found = self._changed.wait_for(lambda: sum(map(wanted, self._seen)) >= count, timeout_s)
        if not found:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {count} x {what}")


def overwritten(traffic: Iterable[Seen]) -> list[str]:
    """Keys that were given other content after they had been written: there must be none."""
    content: dict[str, str] = {}
    found: list[str] = []
    for seen in traffic:
        if seen.method != "PUT" or not seen.landed or REPLACED.search(f"/{seen.key}"):
            continue
        before = content.setdefault(seen.key, seen.sha256)
        if before != seen.sha256:
            found.append(f"{seen.key} was written twice, with other content")
    return found


def made_again(traffic: Iterable[Seen]) -> int:
    """Images that were finished more than once: uploads under another key of the same image."""
    keys = {
        seen.key
        for seen in traffic
        if seen.method == "PUT" and seen.landed and _IMAGE.search(f"/{seen.key}")
    }
    images = Counter(found[1] for key in keys if (found := _IMAGE.search(f"/{key}")))
    return sum(count - 1 for count in images.values())
