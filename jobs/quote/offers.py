"""What a quoted job would cost by each entry of a price book. Pure.

A speed is never guessed: an entry other than that of the measured machine needs a stated one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from cluster.lifetime import ServerBilling
from cluster.pricing import Takes, worker_share
from conf.price_book import InstancePrice, PriceBook, StoragePrice
from jobs.quote.estimate import Crew, Interval, Size, Work, worker_seconds

_S_PER_HOUR = 3600
_STAMP_EVERY_S = 10
_COMMIT_WRITES = 3
_SHARD_WRITES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the output holds and asks of its store: ``image_bytes`` None: not known; ``local``: it
    is a folder, whose requests cost nothing."""

    images: int
    image_bytes: float | None
    months: float
    apart: bool
    commit_images: int
    commit_s: float
    price: StoragePrice | None
    local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One entry of the book. ``seconds`` is the life of each worker, ``paid`` the time that is paid
    for and ``cost`` everything, in 1e-9 currency units; None where the speed or the price is not
    known, then ``unknown`` says why.

    ``nano_per_hour`` is what one worker pays, or a device of the ``devices`` of Triton servers; 0:
    there are none.
    """

    entry: InstancePrice
    workers: int
    nano_per_hour: int | None
    speed: float | None
    seconds: Interval | None
    paid: Interval | None
    cost: Interval | None
    storage_nano: int | None
    requests_nano: int | None
    devices: int = 0
    unknown: str = ""

    @property
    def name(self) -> str:
        """The machine and how it is paid."""
        entry = self.entry
        place = entry.zone or entry.region
        parts = (entry.provider, place, entry.instance_type, entry.purchase_option)
        return " ".join(part for part in parts if part) or "any machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The job on the machine that was measured. ``here`` is that machine's entry, None: the book
    has none, or several that hold alike, of which ``tied`` has the numbers from 1. ``gpus`` are
    those of a worker, None: 1 where the machine has any; ``threads`` those of a worker on it, None:
    a worker has its machine for itself; ``node``: GPUs and CPUs of that machine. ``servers``: how
    Triton servers are paid for that make the images, on so many ``devices``; None: workers do."""

    work: Work
    crew: Crew
    sizes: Sequence[Size]
    kept: Kept
    here: InstancePrice | None
    gpus: float | None
    tied: tuple[int, ...] = ()
    threads: int | None = None
    node: tuple[float, float] = (0.0, 0.0)
    servers: ServerBilling | None = None
    devices: int = 0


def offers(book: PriceBook, asked: Asked) -> list[Offer]:
    """One offer for each entry, those with a cost first, the cheapest on top."""
    found = [_offer(entry, asked) for entry in book.instances]
    return sorted(found, key=lambda one: (one.cost is None, one.cost.middle if one.cost else 0.0))


def speed_of(entry: InstancePrice, here: InstancePrice | None) -> float | None:
    """How many times as fast as the measured machine a worker on ``entry`` is, if that is stated:
    by one reference, the machine itself or another."""
    if here is None:
        return None
    if entry is here or (
        entry.instance_type is not None and entry.instance_type == here.instance_type
    ):
        return 1.0
    theirs, ours = _stated(entry), _stated(here)
    common = [name for name in theirs if name in ours]
    return theirs[common[0]] / ours[common[0]] if common else None


def requests_of(kept: Kept, crew: Crew, seconds: float) -> tuple[int, int]:
    """About how many writes and reads the workers ask of the store: an object an image (or one a
    commit), three a commit, two a shard, a stamp every ten seconds; no listings, nothing twice."""
    by_images = math.ceil(kept.images / kept.commit_images)
    by_time = crew.workers * seconds / kept.commit_s if kept.commit_s else 0
    commits = min(max(crew.shards, by_images, math.ceil(by_time)), max(crew.shards, kept.images))
    data = kept.images if kept.apart else commits
    stamps = crew.workers * (2 + seconds / _STAMP_EVERY_S)
    writes = data + _COMMIT_WRITES * commits + _SHARD_WRITES * crew.shards + stamps
    return math.ceil(writes), 2 * crew.shards


def _stated(entry: InstancePrice) -> dict[str, float]:
    """A machine's speed by reference; its own type is one."""
    found = {} if entry.instance_type is None else {entry.instance_type: 1.0}
    if entry.speed is not None and entry.speed_of is not None:
        found[entry.speed_of] = entry.speed
    return found


def _offer(entry: InstancePrice, asked: Asked) -> Offer:
    price = _price(entry, asked)
    nano = None if isinstance(price, str) else price
    speed = speed_of(entry, asked.here)
    if speed is None:
        seconds, why = None, "speed not known here: measure there or state it"
    else:
        seconds = worker_seconds(asked.work, asked.crew, asked.sizes, speed=speed)
        why = price if isinstance(price, str) else ""
    storage = _storage_nano(asked.kept)
    requests = None if seconds is None else _requests_nano(asked, seconds.middle)
    paid = None if seconds is None or speed is None else _paid(asked, seconds, speed)
    cost = None
    if paid is not None and nano is not None:
        cost = paid.times(nano / _S_PER_HOUR, plus=(storage or 0) + (requests or 0))
    return Offer(
        entry=entry,
        workers=asked.crew.workers,
        nano_per_hour=nano,
        speed=speed,
        seconds=seconds,
        paid=paid,
        cost=cost,
        storage_nano=storage,
        requests_nano=requests,
        devices=asked.devices,
        unknown=why,
    )


def _paid(asked: Asked, seconds: Interval, speed: float) -> Interval:
    """The time that is paid for: the workers' lives, those of servers of the job's own, or what
    servers that others use, too, spent on this job."""
    if asked.servers is None:
        return seconds.times(asked.crew.workers)
    if asked.servers is ServerBilling.OWNED:
        return seconds.times(asked.devices)
    return Interval.around(asked.work.seconds / speed, asked.work.relative)


def _price(entry: InstancePrice, asked: Asked) -> int | str:
    """What a worker pays for an hour: its share of the GPUs, or of the cores where workers are
    known to share them."""
    node_gpus, node_cpus = asked.node if entry is asked.here else (0.0, 0.0)
    gpus = (1.0 if asked.gpus is None else asked.gpus) if entry.gpus or node_gpus else 0.0
    shared = asked.threads if entry is asked.here else None
    takes = Takes(
        gpus=gpus,
        threads=shared or math.ceil(entry.vcpus or 1),
        node_gpus=node_gpus,
        node_cpus=node_cpus,
    )
    return worker_share(entry, takes)


def _storage_nano(kept: Kept) -> int | None:
    """Keeping the images; None where that is asked for and not known."""
    if not kept.months:
        return 0
    if kept.price is None or kept.image_bytes is None:
        return None
    gigabytes = Fraction(kept.image_bytes) / 10**9
    return round(gigabytes * Fraction(kept.months) * kept.price.nano_per_gb_month)


def _requests_nano(asked: Asked, seconds: float) -> int | None:
    price = asked.kept.price
    if asked.kept.local:
        return 0
    if price is None:
        return None
    writes, reads = requests_of(asked.kept, asked.crew, seconds)
    return (writes * price.nano_per_1000_writes + reads * price.nano_per_1000_reads) // 1000
