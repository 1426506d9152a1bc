"""Running a batch in parts: a batch that does not fit in memory is run again in halves.

Nothing is lost: ``run`` must be free of side effects until it returns. The size that fitted is
remembered per key, so that the next batch of that kind starts small enough.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from conf.errors import NoImages

_log = logging.getLogger(__name__)

_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What plain RuntimeErrors say: the CPU's allocator, and cuBLAS where its workspace did not fit."""

T = TypeVar("T")
R = TypeVar("R")
_DIGITS = re.compile(r"\d+")
_WITNESSES = 4


class BatchCaps:
    """The largest batch that may be tried, per key (what is run, and its shape)."""

    def __init__(self) -> None:
        self._caps: dict[Hashable, int] = {}

    def of(self, key: Hashable, wanted: int) -> int:
        """How many of ``wanted`` items to run at once."""
        return max(1, min(wanted, self._caps.get(key, wanted)))

    def lower(self, key: Hashable, failed: int) -> None:
        """Remember that ``failed`` items at once were too many."""
        cap = max(1, failed // 2)
        self._caps[key] = min(cap, self._caps.get(key, cap))
        _log.warning(
            "out of memory: batches of this kind are halved from now on",
            extra={"event": "out_of_memory", "batch": failed, "cap": self._caps[key]},
        )


def run_split(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[R]],
    *,
    caps: BatchCaps,
    key: Hashable,
) -> list[R | Exception]:
    """Run all items, in as few batches as memory allows; one answer or error an item.

    A batch that fails is run again in halves, so that an error ends on the item that causes it.
    Where both halves, and some items alone, fail with the same words, the others are not tried.

    Raises:
        Exception: the device itself is broken; whatever is tried next would fail too.
        NoImages: the model makes none, whatever the items.
    """
    answers: list[R | Exception] = []
    while len(answers) < len(items):
        rest = items[len(answers) :]
        part = rest[: caps.of(key, len(rest))]
        error = _try(part, run, answers)
        if error is None:
            continue
        if len(part) == 1:
            answers.append(error)
        elif is_out_of_memory(error):
            caps.lower(key, len(part))
        else:
            answers += _halved(part, run, caps=caps, key=key)
    return answers


def _halved(
    part: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[R]],
    *,
    caps: BatchCaps,
    key: Hashable,
) -> list[R | Exception]:
    """The answers of a batch that failed."""
    middle = len(part) // 2
    halves = (part[:middle], part[middle:])
    made: tuple[list[R | Exception], list[R | Exception]] = ([], [])
    errors = [_try(half, run, answers) for half, answers in zip(halves, made, strict=True)]
    if len(part) > _WITNESSES and _fail_alike(errors):
        fault = _shared_fault(part, run)
        if fault is not None:
            return [fault] * len(part)
    for half, answers, error in zip(halves, made, errors, strict=True):
        if error is None:
            continue
        if len(half) == 1:
            answers.append(error)
        elif is_out_of_memory(error):
            caps.lower(key, len(half))
            answers += run_split(half, run, caps=caps, key=key)
        else:
            answers += _halved(half, run, caps=caps, key=key)
    return made[0] + made[1]


def _shared_fault(part: Sequence[T], run: Callable[[Sequence[T]], Sequence[R]]) -> Exception | None:
    """Why every item of a batch fails, whose halves fail alike; None where only some are at fault.

    Four items alone bear witness, neither all neighbours nor at equal distances. So fewer than four
    faulty items never cost a sound one.
    """
    errors: list[Exception | None] = []
    for place in (0, 1, len(part) // 2, len(part) - 1):
        errors.append(_try([part[place]], run, []))
        if not _fail_alike(errors):
            return None
    return errors[0]


def _fail_alike(errors: Sequence[Exception | None]) -> bool:
    """Whether all failed for one reason, other than memory; numbers may differ by batch size."""
    if any(error is None or is_out_of_memory(error) for error in errors):
        return False
    return len({_DIGITS.sub("0", f"{type(error).__name__}: {error}") for error in errors}) == 1


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may succeed."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )


def _try(
    part: Sequence[T], run: Callable[[Sequence[T]], Sequence[R]], answers: list[R | Exception]
) -> Exception | None:
    """Append the answers of one batch, or return why there are none."""
    try:
        answers += run(part)
    except NoImages:
        raise
    except Exception as error:
        if _is_device_broken(error):
            raise
        # its frames hold the failed batch's tensors
        failed = error.with_traceback(None)
    else:
        return None
    if is_out_of_memory(failed) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return failed


def _is_device_broken(error: Exception) -> bool:
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
