"""Tables that counted commits name, read a few objects ahead: memory does not grow with the job."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa

from cluster.store import Store
from conf.errors import CorruptOutput

_TOGETHER = 64
"""Objects that become one table."""
_AHEAD = 2 * _TOGETHER
_THREADS = 8


def counted_tables(keys: Iterable[str], read: Callable[[str], pa.Table]) -> Iterator[pa.Table]:
    """The objects at these keys in their order, some thousands of rows at a time.

    Args:
        read: an object's table, of equal columns for all; called in threads; its errors end it.
    """
    ahead: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(_THREADS, "counted") as pool:
        for key in keys:
            ahead.append(pool.submit(read, key))
            if len(ahead) == _AHEAD:
                yield _next(ahead)
        while ahead:
            yield _next(ahead)


def counted_table(store: Store, key: str, parse: Callable[[bytes], pa.Table]) -> pa.Table:
    """One object, its bytes parsed.

    Raises:
        CorruptOutput: it is missing or damaged.
    """
    data = store.get(key)
    if data is None:
        raise CorruptOutput(
            f"{store.path(key)} is named by a counted commit but does not exist; "
            "'imagemill verify' tells what else is missing"
        )
    try:
        return parse(data)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptOutput(f"{store.path(key)} is damaged: {error}") from error


def _next(ahead: deque[Future[pa.Table]]) -> pa.Table:
    waiting = [ahead.popleft() for _ in islice(range(_TOGETHER), len(ahead))]
    return pa.concat_tables([one.result() for one in waiting])
