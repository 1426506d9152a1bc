"""The ledger's lines of workers and storage, which are only ever added to. Pure.

What is known of a worker's life may grow after its lines were written and read by somebody. A line
that is there stays as it is; what has changed since is a line of its own that ``corrects`` it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cluster.ledger import LEDGER

_SUMS = ("gpu_ns", "quantity", "amount_nano")


def with_corrections(before: pa.Table, now: pa.Table) -> pa.Table:
    """All lines of ``before``, then what is missing for their sums to be those of ``now``.

    Adding to the result with the same ``now`` adds nothing. Both are tables of ``LEDGER``.
    """
    said: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for line in before.to_pylist():
        base = line["corrects"] or line["line_id"]
        sums = said.setdefault(base, dict.fromkeys(_SUMS))
        counts[base] += 1
        for name in _SUMS:
            sums[name] = _plus(sums[name], line[name])
    lines = now.to_pylist()
    added = [
        line if line["line_id"] not in said else _difference(line, said[line["line_id"]], counts)
        for line in lines
        if {name: line[name] for name in _SUMS} != said.get(line["line_id"])
    ]
    gone = said.keys() - {line["line_id"] for line in lines}
    added += [
        _difference(line | dict.fromkeys(_SUMS), said[line["line_id"]], counts)
        for line in before.to_pylist()
        if line["line_id"] in gone and any(said[line["line_id"]].values())
    ]
    return pa.concat_tables([before, pa.Table.from_pylist(added, schema=LEDGER)])


def _difference(
    line: dict[str, Any], said: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, Any]:
    """What is missing to the line from the sums that were said of it before."""
    base = line["line_id"]
    missing = {name: _minus(line[name], said[name]) for name in _SUMS}
    return line | missing | {"line_id": f"{base}:{counts[base]}", "corrects": base}


def _plus(left: Any, right: Any) -> Any:
    if left is None:
        return right
    return left if right is None else left + right


def _minus(now: Any, before: Any) -> Any:
    if before is None:
        return now
    return -before if now is None else now - before
