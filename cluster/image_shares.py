"""What an image cost with its share of what no image has: waste, loading, waiting, the store. Pure.

Shares go by the images' direct cost, each kind of line for itself, in one stable order: an image
has what has come of a kind up to it, rounded down, less what had come before it. So the shares sum
exactly to the kind, none is off by a unit or more, and memory does not grow with the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.energy import Power, footprint
from cluster.exact_money import money_of, nano_of
from cluster.image_columns import SHARED, SHARES
from cluster.money import LedgerLine
from cluster.tables import MONEY
from cluster.totals import Bill
from conf.schema import EnergyConfig

NEEDED = ("cost", "gpu_seconds", "energy_wh", "energy_method", "gco2e")
"""The metadata columns that shares are made from."""
_NS_PER_HOUR = 3600 * 10**9
_S_PER_HOUR = 3600
_Amounts = npt.NDArray[np.int64]
_Weigh = Callable[[pa.Table, _Amounts], list[int]]
Pools = Mapping[str, int | None]
"""Kind -> 1e-9 currency units of all its lines; None where one of them has no price."""


def pools_of(lines: Iterable[LedgerLine], bill: Bill) -> Pools:
    """What there is to share, of all ``lines`` but those of images. Where a worker has no price
    nothing is known: not what the images weigh either."""
    pools: dict[str, int | None] = dict.fromkeys(SHARED, None if bill.unpriced else 0)
    for line in lines:
        before, amount = pools[line.kind], line.amount_nano
        pools[line.kind] = None if before is None or amount is None else before + amount
    return pools


class Split:
    """The parts of ``pools``, image after image, by weights of which ``whole`` is the sum."""

    def __init__(self, pools: Pools, whole: int) -> None:
        self._pools = pools
        self._whole = whole
        self._upto = 0

    def next(self, weights: Sequence[int]) -> dict[str, list[int] | None]:
        """Kind -> the parts of the next images; None: not known."""
        places = list(accumulate(weights, initial=self._upto))
        self._upto = places[-1]
        return {
            kind: None if pool is None else _parts(pool, places, self._whole)
            for kind, pool in self._pools.items()
        }


def _parts(pool: int, places: Sequence[int], whole: int) -> list[int]:
    if not pool:
        return [0] * (len(places) - 1)
    return [upto - before for before, upto in pairwise(pool * place // whole for place in places)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Others:
    """What an image has of the time that no image used: that time over the images', and what an
    hour of it takes where that is stated."""

    ratio: float
    energy_wh: float | None
    gco2e: float | None


class ImageShares:
    """The share columns of metadata tables, which come one after another, each image once.

    Energy and carbon are shared by device time, at the power that is stated: for images whose own
    energy was measured the rest was not, and is null.
    """

    def __init__(self, pools: Pools, bill: Bill, images: int, others: _Others) -> None:
        self._others = others
        self._weigh: _Weigh = _by_count
        whole = images
        if bill.amount["used"]:
            self._weigh, whole = _by_cost, bill.amount["used"]
        elif bill.ns["used"]:
            self._weigh, whole = _by_time, bill.ns["used"]
        self._split = Split(pools, whole)

    @classmethod
    def of(cls, lines: Iterable[LedgerLine], bill: Bill, images: int, stated: EnergyConfig) -> Self:
        """Of a job with this bill; ``lines`` are all but those of its images."""
        power = None if stated.watts is None else Power(watts=stated.watts, method="stated")
        hour = footprint(_NS_PER_HOUR, power, stated)
        used_ns = bill.ns["used"]
        ratio = (bill.total_ns - used_ns) / used_ns if used_ns else 0.0
        others = _Others(ratio=ratio, energy_wh=hour.energy_wh, gco2e=hour.gco2e)
        return cls(pools_of(lines, bill), bill, images, others)

    def columns(self, table: pa.Table) -> list[pa.Array]:
        """The columns of ``SHARES`` for a table that has those of ``NEEDED``."""
        direct = nano_of(table["cost"])
        parts = self._split.next(self._weigh(table, direct))
        known = [part for part in parts.values() if part is not None]
        total = None
        if len(known) == len(parts):
            total = [sum(amounts) for amounts in zip(direct.tolist(), *known, strict=True)]
        found = [*parts.values(), total]
        money = [pa.nulls(len(table), MONEY) if c is None else money_of(c) for c in found]
        return [*money, self._energy(table, "energy_wh"), self._energy(table, "gco2e")]

    def _energy(self, table: pa.Table, name: str) -> pa.Array:
        hourly = getattr(self._others, name)
        if hourly is None:
            return pa.nulls(len(table), pa.float64())
        hours = pc.multiply(table["gpu_seconds"], self._others.ratio / _S_PER_HOUR)
        whole = pc.add(table[name], pc.multiply(hours, hourly))
        stated = pc.equal(table["energy_method"], "stated")
        found = pc.if_else(stated, whole, pa.scalar(None, pa.float64()))
        return pa.concat_arrays(found.chunks) if found.num_chunks else pa.nulls(0, pa.float64())


def _by_cost(_: pa.Table, direct: _Amounts) -> list[int]:
    weights: list[int] = direct.tolist()
    return weights


def _by_time(table: pa.Table, _: _Amounts) -> list[int]:
    """Where images took time, but less than the smallest unit of money."""
    return [round(seconds * 1e9) for seconds in table["gpu_seconds"].to_pylist()]


def _by_count(table: pa.Table, _: _Amounts) -> list[int]:
    """Where images took no time at all."""
    return [1] * len(table)


__all__ = ["NEEDED", "SHARES", "ImageShares", "Pools", "Split", "pools_of"]
