"""Which names of a folder a listing is asked for, so that the rest of it is never held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names that come after ``after`` and before ``before`` in the order of their characters, and
    of these only those that are ``wanted``."""

    after: str
    before: str
    wanted: Callable[[str], bool]

    def __contains__(self, name: str) -> bool:
        return self.after < name < self.before and self.wanted(name)
