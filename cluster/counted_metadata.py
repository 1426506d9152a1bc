"""The metadata of images that count: the tables that counted commits name, in the plan's order.

Reads a few objects ahead, so that memory does not grow with the job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa

from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import METADATA, read_parquet
from cluster.totals import counted, states
from conf.errors import CorruptOutput

_TOGETHER = 64
"""Objects that become one table."""
_AHEAD = 2 * _TOGETHER
_THREADS = 8


def metadata_of(store: Store, plan: PlanReader, columns: Sequence[str]) -> Iterator[pa.Table]:
    """These columns of ``METADATA`` for all images, some thousands at a time.

    Raises:
        CorruptOutput: a table that a counted commit names is missing or damaged.
    """
    schema = pa.schema([METADATA.field(name) for name in columns])
    refs = (commit.metadata for state in states(store, plan) for commit, _ in counted(state))
    ahead: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(_THREADS, "metadata") as pool:
        for ref in refs:
            if ref is not None:
                ahead.append(pool.submit(_read, store, ref.key, schema))
            if len(ahead) == _AHEAD:
                yield _next(ahead)
        while ahead:
            yield _next(ahead)


def _next(ahead: deque[Future[pa.Table]]) -> pa.Table:
    waiting = [ahead.popleft() for _ in islice(range(_TOGETHER), len(ahead))]
    return pa.concat_tables([one.result() for one in waiting])


def _read(store: Store, key: str, schema: pa.Schema) -> pa.Table:
    data = store.get(key)
    if data is None:
        raise CorruptOutput(
            f"{store.path(key)} is named by a counted commit but does not exist; "
            "'imagemill verify' tells what else is missing"
        )
    try:
        return read_parquet(data, schema.names).select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptOutput(f"{store.path(key)} is damaged: {error}") from error
