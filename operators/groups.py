"""Which waiting items share the next call: pure bookkeeping of items and their group's key.

Knows nothing of requests or time: the only clock is the count of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
LOOKAHEAD_BATCHES = 6
PATIENCE_CALLS = 32


class Groups(Generic[T]):
    """Items by the key that they must share to be in one call.

    The group that fills a call best goes first, on a tie the one that waits longest; whatever has
    waited for more than ``patience_calls`` goes before all that. Within a group it is first come,
    first served.
    """

    def __init__(self, *, max_batch: int, patience_calls: int = PATIENCE_CALLS) -> None:
        self.max_batch = max_batch
        self._patience_calls = patience_calls
        self._waiting: dict[Hashable, list[tuple[int, T]]] = {}
        self._calls = 0
        self._count = 0

    def __len__(self) -> int:
        """All items. Counted, so that another thread may ask while groups change."""
        return self._count

    def __iter__(self) -> Iterator[T]:
        for group in self._waiting.values():
            yield from (item for _, item in group)

    @property
    def room(self) -> int:
        """How many more items it wants to hold, so that groups can fill."""
        return max(0, LOOKAHEAD_BATCHES * self.max_batch - len(self))

    def add(self, key: Hashable, item: T) -> None:
        """Let an item wait."""
        self._waiting.setdefault(key, []).append((self._calls, item))
        self._count += 1

    def take(self) -> list[T]:
        """Remove and return the items of the next call, at most ``max_batch``; count one call."""
        if not self._waiting:
            return []
        key = max(self._waiting, key=self._urgency)
        taken = self._waiting[key][: self.max_batch]
        self._keep(key, self._waiting[key][self.max_batch :])
        self._calls += 1
        return [item for _, item in taken]

    def remove(self, unwanted: Callable[[T], bool]) -> int:
        """Drop the items for which ``unwanted`` holds; returns how many."""
        before = len(self)
        for key, group in list(self._waiting.items()):
            self._keep(key, [(since, item) for since, item in group if not unwanted(item)])
        return before - len(self)

    def _urgency(self, key: Hashable) -> tuple[int, int, int]:
        group = self._waiting[key]
        waited = self._calls - group[0][0]
        overdue = waited if waited > self._patience_calls else 0
        return (overdue, min(self.max_batch, len(group)), waited)

    def _keep(self, key: Hashable, group: list[tuple[int, T]]) -> None:
        self._count += len(group) - len(self._waiting[key])
        if group:
            self._waiting[key] = group
        else:
            del self._waiting[key]
