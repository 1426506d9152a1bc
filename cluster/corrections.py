"""The ledger's lines of workers and storage, which are only ever added to. Pure.

What is known of a worker's life, or of a price, may change after its lines were written and read by
somebody. A line that is there stays as it is; what has changed since is a line of its own that
``corrects`` it.

Lines of one base (a line and what corrects it) at one price sum to what is charged at that price.
Where the price changes, all at the old one is taken back at the old one and charged anew, so that
each line's amount is its price by its quantity. No price is a price of its own, and never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cluster.ledger import LEDGER, PRICE_COLUMNS

_SUMS = ("gpu_ns", "quantity", "amount_nano")
_Line = dict[str, Any]
_Charged = tuple[Any, ...]
"""A line's base and price; no price is null, as is the amount then."""


def with_corrections(before: pa.Table, now: pa.Table) -> pa.Table:
    """All lines of ``before``, then what is missing for their sums at each price to be ``now``'s.

    Adding to the result with the same ``now`` adds nothing. Both are tables of ``LEDGER``.
    """
    old = before.to_pylist()
    said = _said(old)
    counts = Counter(_base(line) for line in old)
    wanted = {_charged(line): line for line in now.to_pylist()}
    added: list[_Line] = []
    for charged, line in [*_taken_back(said, wanted), *wanted.items()]:
        missing = {name: _minus(line[name], said.get(charged, {}).get(name)) for name in _SUMS}
        base = _base(line)
        if not counts[base]:
            added.append(line)
        elif charged not in said or any(missing.values()):
            added.append(line | missing | {"line_id": f"{base}:{counts[base]}", "corrects": base})
        else:
            continue
        counts[base] += 1
    return pa.concat_tables([before, pa.Table.from_pylist(added, schema=LEDGER)])


def standing(table: pa.Table) -> pa.Table:
    """The lines of a table of ``LEDGER`` with one for each unknown cost that stands.

    Lines without an amount of one base and price become the first of them, as the newest tells it
    and with their sums; where these are nothing, the cost is unknown no more. What has an amount is
    all there, and sums as before.
    """
    if not table["amount_nano"].null_count:
        return table
    lines = table.to_pylist()
    unknown = _said([line for line in lines if line["amount_nano"] is None])
    stands: list[_Line] = []
    for line in lines:
        if line["amount_nano"] is not None:
            stands.append(line)
            continue
        known = unknown.pop(_charged(line), None)
        if known is not None and any(known[name] for name in _SUMS):
            stands.append(known | {name: line[name] for name in ("line_id", "corrects")})
    return pa.Table.from_pylist(stands, schema=LEDGER)


def _taken_back(
    said: Mapping[_Charged, _Line], wanted: Mapping[_Charged, _Line]
) -> list[tuple[_Charged, _Line]]:
    """What was charged at prices that no longer hold, as lines of nothing at these prices."""
    return [
        (charged, line | dict.fromkeys(_SUMS))
        for charged, line in said.items()
        if charged not in wanted
    ]


def _said(lines: Sequence[_Line]) -> dict[_Charged, _Line]:
    """The newest line of each base and price, with the sums of all of them."""
    said: dict[_Charged, _Line] = {}
    for line in lines:
        sums = said.get(_charged(line), dict.fromkeys(_SUMS))
        said[_charged(line)] = line | {name: _plus(sums[name], line[name]) for name in _SUMS}
    return said


def _base(line: _Line) -> str:
    return str(line["corrects"] or line["line_id"])


def _charged(line: _Line) -> _Charged:
    return (_base(line), *(line[name] for name in PRICE_COLUMNS))


def _plus(left: Any, right: Any) -> Any:
    if left is None:
        return right
    return left if right is None else left + right


def _minus(now: Any, before: Any) -> Any:
    if before is None:
        return now
    return -before if now is None else now - before
