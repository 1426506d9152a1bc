"""What a named fault is, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.scene import Scene

Cause = Callable[[Scene], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``name`` is the function's, with dashes; ``sentence`` its docstring.

    ``cause`` starts the job and disturbs it; what it leaves undone is resumed afterwards.
    """

    name: str
    sentence: str
    cause: Cause


FAULTS: dict[str, Fault] = {}
"""All faults by name, in the order in which they are written."""


def fault(cause: Cause) -> Cause:
    """Enter a fault into the list; its docstring says in a sentence what is done."""
    assert cause.__doc__, f"{cause.__name__} says nothing of what it does"
    name = cause.__name__.replace("_", "-")
    assert name not in FAULTS, f"two faults are named {name}"
    FAULTS[name] = Fault(name=name, sentence=" ".join(cause.__doc__.split()), cause=cause)
    return cause
