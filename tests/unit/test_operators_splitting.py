"""A batch that fails: whose fault it is, and how often the others are run for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
import torch

from conf.errors import NoImages
from operators.splitting import BatchCaps, run_split

ROWS = range(16)


class Model:
    """Makes -n of n; ``bad`` ones fail their batch in words that tell nothing of them."""

    def __init__(self, bad: Collection[int], error: type[Exception] = ValueError) -> None:
        self._bad = bad
        self._error = error
        self.sizes: list[int] = []

    def __call__(self, part: Sequence[int]) -> list[int]:
        self.sizes.append(len(part))
        if any(n in self._bad for n in part):
            raise self._error(f"{len(part)} rows cannot be made")
        return [-n for n in part]


def faulty(model: Model) -> set[int]:
    """Which rows come to nothing; the others must have their own answer."""
    answers = run_split(ROWS, model, caps=BatchCaps(), key="k")
    assert len(answers) == len(ROWS)
    failed = {n for n, answer in zip(ROWS, answers, strict=True) if isinstance(answer, Exception)}
    assert all(answer == -n for n, answer in zip(ROWS, answers, strict=True) if n not in failed)
    return failed


@pytest.mark.parametrize("bad", ROWS)
def test_one_bad_row_costs_one_row_and_is_found_by_halving(bad: int) -> None:
    model = Model({bad})
    assert faulty(model) == {bad}
    assert model.sizes == [16, 8, 8, 4, 4, 2, 2, 1, 1]


@pytest.mark.parametrize(
    "bad", [{0, 8}, {0, 15}, {0, 8, 15}, {0, 1, 8}, {0, 4, 8, 12}, {0, 1, 2, 3}]
)
def test_bad_rows_in_both_halves_cost_no_other_row(bad: set[int]) -> None:
    assert faulty(Model(bad)) == bad


def test_all_but_one_bad_row_leave_that_one() -> None:
    assert faulty(Model(set(ROWS) - {15})) == set(ROWS) - {15}


def test_rows_that_all_fail_alike_are_not_all_tried_again() -> None:
    model = Model(ROWS)
    assert faulty(model) == set(ROWS)
    assert model.sizes == [16, 8, 8, 1, 1, 1, 1]


def test_halves_that_fail_in_other_words_are_halved_on() -> None:
    def run(part: Sequence[int]) -> list[int]:
        for n in set(part) & {3, 12}:
            raise ValueError("early" if n == 3 else "late")
        return [-n for n in part]

    answers = run_split(ROWS, run, caps=BatchCaps(), key="k")
    assert {n for n, one in zip(ROWS, answers, strict=True) if isinstance(one, Exception)} == {
        3,
        12,
    }


def test_memory_is_never_the_fault_that_all_rows_share() -> None:
    """Each half is too large for once, after the whole was refused for another reason."""

    def run(part: Sequence[int]) -> list[int]:
        if len(part) == 16:
            raise ValueError("odd")
        if len(part) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return [-n for n in part]

    caps = BatchCaps()
    assert run_split(ROWS, run, caps=caps, key="k") == [-n for n in ROWS]
    assert caps.of("k", 16) == 2


def test_a_model_that_makes_no_images_is_asked_once() -> None:
    model = Model(ROWS, NoImages)
    with pytest.raises(NoImages):
        run_split(ROWS, model, caps=BatchCaps(), key="k")
    assert model.sizes == [16]
