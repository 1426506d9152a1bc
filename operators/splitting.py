"""Running a batch in parts: a batch that does not fit in memory is run again in halves.

Nothing is lost: ``run`` must be free of side effects until it returns. The size that fitted is
remembered per key, so that the next batch of that kind starts small enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

_log = logging.getLogger(__name__)

_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What plain RuntimeErrors say: the CPU's allocator, and cuBLAS where its workspace did not fit."""

T = TypeVar("T")
R = TypeVar("R")


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

    Raises:
        Exception: the device itself is broken; whatever is tried next would fail too.
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
            middle = len(part) // 2
            for half in (part[:middle], part[middle:]):
                answers += run_split(half, run, caps=caps, key=key)
    return answers


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
