"""The error tree is drawn as it is, and every error says what to do."""

from __future__ import annotations

import pickle
import re

import pytest

from conf import errors
from conf.errors import ImageMillError, RowRejected


def tree(cls: type[ImageMillError] = ImageMillError) -> list[type[ImageMillError]]:
    here = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    below = sorted(here, key=lambda c: c.__name__)
    return [cls, *(found for sub in below for found in tree(sub))]


def drawn() -> dict[str, str | None]:
    """Class -> its parent in the drawing, by indentation."""
    parents: list[tuple[int, str]] = []
    found: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z]\w+)", line)
        if not match or match[2] not in vars(errors):
            continue
        depth = len(match[1])
        while parents and parents[-1][0] >= depth:
            parents.pop()
        found[match[2]] = parents[-1][1] if parents else None
        parents.append((depth, match[2]))
    return found


def test_every_class_is_drawn_in_the_docstring_below_its_own_parent() -> None:
    actual = {
        cls.__name__: None if cls is ImageMillError else cls.__bases__[0].__name__ for cls in tree()
    }
    assert drawn() == actual


def test_every_public_class_of_the_module_is_in_the_tree() -> None:
    public = {n for n, v in vars(errors).items() if isinstance(v, type) and not n.startswith("_")}
    assert public == {cls.__name__ for cls in tree()}


@pytest.mark.parametrize("cls", tree())
def test_every_class_has_a_docstring(cls: type[ImageMillError]) -> None:
    assert cls.__doc__


@pytest.mark.parametrize("cls", [c for c in tree() if c is not RowRejected])
def test_every_error_keeps_its_message_through_a_pickle(cls: type[ImageMillError]) -> None:
    copy = pickle.loads(pickle.dumps(cls("what, and what next")))
    assert type(copy) is cls
    assert str(copy) == "what, and what next"


def test_a_rejected_row_keeps_stage_reason_and_message_through_a_pickle() -> None:
    error = RowRejected(stage="decode", reason="nan_image", message="the image is not finite")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.stage, copy.reason, copy.message) == (error.stage, error.reason, error.message)
    assert str(copy) == "the image is not finite"
