"""What a sealed shard comes to: the numbers that stand for its records, which never change."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.records import Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What a worker's counted images of one shard used: nanoseconds, and 1e-9 currency units.

    ``stamp`` is the newest evidence of its lifetime in the shard's commits.
    """

    used_ns: int
    used_amount: int
    stamp: Stamp

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self.stamp.worker


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShard:
    """The sums over a shard's counted commits, as its seal lists them.

    ``epoch`` is the seal's own, ``attempt`` counts the openings that worked on the shard. Holds
    until a retry of a later generation than ``generation`` opens the shard again.
    """

    shard_id: int
    generation: int
    epoch: int
    attempt: int
    committed: int
    quarantined: int
    images: int
    image_bytes: int
    shares: tuple[WorkerShare, ...]
