"""What a job asks for, cut into strata, with a few rows of each to try. Pure.

A stratum is size, steps, guidance and sampler. Memory grows with the strata, not with the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from operators.request import Request, derive_seed

_KEPT = 4
"""Rows of a stratum that are kept to be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Images that ask for the same but for prompt and seed; ``passes`` is 2 with guidance."""

    width: int
    height: int
    steps: int
    passes: int
    sampler: str


@dataclass(slots=True)
class Stock:
    """Of one stratum: how much of it the job has, and a uniform choice of its rows."""

    rows: int = 0
    images: int = 0
    pixel_steps: float = 0.0
    kept: list[Request] = field(default_factory=list)


class Strata:
    """Counts rows by stratum and keeps a few of each; ``random`` chooses which."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.stocks: dict[Stratum, Stock] = defaultdict(Stock)

    def add(self, stratum: Stratum, request: Request, images: int, pixel_steps: float) -> None:
        """A row of ``images`` images, ``pixel_steps`` all together."""
        stock = self.stocks[stratum]
        stock.rows += 1
        stock.images += images
        stock.pixel_steps += pixel_steps
        if len(stock.kept) < _KEPT:
            stock.kept.append(request)
        elif (place := self._random.randrange(stock.rows)) < _KEPT:
            stock.kept[place] = request

    def sizes(self) -> list[tuple[int, int]]:
        """Widths and heights, those with the most work first."""
        work: dict[tuple[int, int], float] = defaultdict(float)
        for stratum, stock in self.stocks.items():
            work[stratum.width, stratum.height] += stock.pixel_steps
        return sorted(work, key=lambda size: (-work[size], size))

    def of_size(self, size: tuple[int, int]) -> Mapping[Stratum, Stock]:
        """The strata of one size, alike ones side by side."""
        found = [key for key in self.stocks if (key.width, key.height) == size]
        found.sort(key=lambda key: (key.passes, key.steps, key.sampler))
        return {key: self.stocks[key] for key in found}


def rows_to_try(
    strata: Mapping[Stratum, Stock], *, at_once: int, random: Random
) -> Iterator[tuple[Stratum, Request]]:
    """Rows without an end, each stratum as often as its share of the work says: round after round
    of ``at_once`` rows, taken at equal distances from a random start."""
    whole = sum(stock.pixel_steps for stock in strata.values())
    number = 0
    while True:
        start = random.random()
        marks = [(place + start) / at_once * whole for place in range(at_once)]
        for stratum, stock in _at(strata, marks):
            yield stratum, _fresh(random.choice(stock.kept), number)
            number += 1


def _at(strata: Mapping[Stratum, Stock], marks: Iterable[float]) -> Iterator[tuple[Stratum, Stock]]:
    """The strata in which the ascending marks on the line of all work fall."""
    items = iter(strata.items())
    stratum, stock = next(items)
    end = stock.pixel_steps
    for mark in marks:
        while mark >= end and (following := next(items, None)) is not None:
            stratum, stock = following
            end += stock.pixel_steps
        yield stratum, stock


def _fresh(request: Request, number: int) -> Request:
    """A row that may be tried more than once, each time with a name and a seed of its own."""
    seed = derive_seed(job_seed=request.seed, row_id=number, image_index=0)
    return replace(request, image_id=f"pilot-{number}", seed=seed)
