"""When each image of a run was made, and the rates that follow.

Pure: times are seconds on one clock, whatever made the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An image of a way that makes one group after the other.

    ``work`` is what it asked of the denoiser, in any unit; ``denoiser_s`` its share of the time
    there; ``group`` how many images shared it, for ``steps`` steps.
    """

    started_s: float
    finished_s: float
    work: float
    denoiser_s: float
    group: int
    steps: int


def steady_rate(made: Sequence[Made], last_byte_s: float) -> float:
    """Images a second from the end of the first group to the last byte.

    Images are counted by their work: which of them are in the first group changes nothing.

    Raises:
        ValueError: all images were made in the first group.
    """
    begin_s = min(one.finished_s for one in made)
    first_s = min(one.started_s for one in made)
    later = [one for one in made if one.started_s > first_s]
    if not later:
        raise ValueError(f"all {len(made)} images are of the first group; expected more rows")
    share = sum(one.work for one in later) / sum(one.work for one in made)
    return len(made) * share / (last_byte_s - begin_s)


def denoiser_share(made: Sequence[Made]) -> float:
    """The denoiser's part of the time from the first group's start to the last one's end."""
    spent_s = max(one.finished_s for one in made) - min(one.started_s for one in made)
    return sum(one.denoiser_s for one in made) / spent_s


def fill(made: Sequence[Made], batch: int) -> float:
    """Occupied slots of all offered ones, where every call could have taken ``batch`` images."""
    return sum(one.steps for one in made) / sum(batch * one.steps / one.group for one in made)
