"""Measure how a job of a million shards is resumed and looked at when 90 % of it is sealed.

    python -m benchmarks.resume_million --output out/million

Builds an output once, through the code that writes a real one: the plan, a checkpoint that grew by
an interval's seals at a time, and after it a tail of shards that are sealed by their records alone.
The records of the checkpointed shards are not made: whoever read them would find nothing. Then it
measures, each in a process of its own, the start of a coordinator until a worker has a shard that
is not sealed, and ``imagemill status``. Peak memory is Linux's high-water mark of resident memory,
which unlike ``ru_maxrss`` does not begin with the parent's.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cluster import layout
from cluster.actors import CoordinatorActor
from cluster.checkpoint import add_checkpoint, newest_checkpoint, numbers
from cluster.held_shard import open_shard
from cluster.job_log import JobRecord, read_job, write_job
from cluster.leases import Grant
from cluster.lifetime import utc_now
from cluster.plan_file import InputFile, PlanReader, write_plan
from cluster.price import Price
from cluster.records import Commit, Shard, Stamp, ranges_of
from cluster.sealed_shard import SealedShard, WorkerShare
from cluster.shard_log import ShardLog, ShardState
from cluster.store import Store
from cluster.totals import sealed_shard
from cluster.traffic import Requests
from jobs.configure import compose
from jobs.execute import version
from jobs.status import status

SHARD_ROWS = 100
WORKERS = 64
PRICE = Price(
    nano_per_hour=10**9,
    currency="USD",
    version="1",
    digest="0123456789abcdef",
    provider="cloud",
    region="here",
    instance_type="gpu",
    purchase_option="spot",
)
INTERVAL = 30_000
"""Shards that are sealed between two checkpoints."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="out/million")
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--sealed", type=int, default=900_000)
    parser.add_argument("--tail", type=int, default=200)
    parser.add_argument("--measure", choices=sorted(MEASURES), help="one measure, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(MEASURES[arguments.measure], Store(arguments.output))))
        return
    store = Store(str(Path(arguments.output).absolute()))
    if not store.exists(layout.JOB):
        build(store, arguments.shards, arguments.sealed, arguments.tail)
    (entry,) = store.listing(layout.CHECKPOINTS)[-1:]
    print(f"\n{entry.key}: {entry.bytes:,} bytes, {entry.bytes / arguments.sealed:.1f} a shard\n")
    print("| | seconds | CPU seconds | peak MiB | MiB before |\n|---|---|---|---|---|")
    for name in MEASURES:
        found = in_a_process_of_its_own(name, store.url)
        times = f"{found['seconds']:.2f} | {found['cpu_seconds']:.2f}"
        print(f"| {name} | {times} | {found['peak']:.0f} | {found['before']:.0f} |")


def in_a_process_of_its_own(name: str, output: str) -> dict[str, float]:
    """One measure; nothing that was read before helps it but the system's page cache."""
    command = [sys.executable, "-m", "benchmarks.resume_million", "--output", output]
    done = subprocess.run(
        [*command, "--measure", name], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(work: Callable[[Store], None], store: Store) -> dict[str, float]:
    """Seconds and peak memory in MiB; imports are over and not counted in the seconds."""
    before = peak_mib()
    started_s, cpu_s = time.perf_counter(), time.process_time()
    work(store)
    return {
        "seconds": time.perf_counter() - started_s,
        "cpu_seconds": time.process_time() - cpu_s,
        "peak": peak_mib(),
        "before": before,
    }


def peak_mib() -> float:
    status_lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = [line.split()[1] for line in status_lines if line.startswith("VmHWM:")]
    return int(kib) / 1024


def first_grant(store: Store) -> None:
    """A coordinator starts and grants a shard."""
    assert isinstance(coordinator(store).acquire("ada"), Grant)


def first_pending(store: Store) -> None:
    """The same, and one worker finds the tail sealed until it has a shard to work on."""
    started = coordinator(store)
    plan = PlanReader(store)
    while True:
        grant = started.acquire("ada")
        assert isinstance(grant, Grant)
        state = open_shard(store, plan.shard(grant.shard_id), worker="ada", generation=0)
        if not isinstance(state, ShardState):
            return
        started.sealed("ada", sealed_shard(state))


def coordinator(store: Store) -> CoordinatorActor:
    """The class that the actor is made of, without Ray."""
    config = read_job(store).config
    config = replace(config, output=replace(config.output, path=store.url))
    return CoordinatorActor(
        config.to_mapping(),
        total=PlanReader(store).shards,
        shards=None,
        lease_s=config.cluster.lease_s,
    )


def look(store: Store) -> None:
    """What ``imagemill status`` does."""
    found = status(store)
    assert found.pending > 0


def merge(store: Store) -> None:
    """The next checkpoint, after one more interval; it is taken away again."""
    sealed = newest_checkpoint(store)
    assert sealed is not None
    written = add_checkpoint(store, list(seals(sealed.shards, 1000)))
    store.delete(layout.checkpoint(written.number))


MEASURES: dict[str, Callable[[Store], None]] = {
    "first grant": first_grant,
    "first shard to work on": first_pending,
    "status": look,
    "next checkpoint": merge,
}


def build(store: Store, shards: int, sealed: int, tail: int) -> None:
    """The output: claimed, planned, checkpointed, and a tail of real records."""
    config = compose(["input.path=prompts.parquet", f"output.path={store.url}", "engine=simulated"])
    job = JobRecord(
        config=config,
        digest=config.digest(),
        version=version(),
        model_revision="simulated",
        created_at=utc_now(),
    )
    write_job(store, job)
    file = InputFile(
        index=0, file="p", source="p", bytes=1, fingerprint="x", rows=shards * SHARD_ROWS
    )
    write_plan(store, [file], (planned(shard_id) for shard_id in range(shards)))
    for first in range(0, sealed, INTERVAL):
        add_checkpoint(store, list(seals(first, min(INTERVAL, sealed - first))))
        print(f"checkpoint {numbers(store)[-1]}: {first + INTERVAL:,} shards", flush=True)
    for shard_id in range(sealed, sealed + tail):
        seal_by_records(store, shard_id)


def planned(shard_id: int) -> Shard:
    first = shard_id * SHARD_ROWS
    return Shard(shard_id=shard_id, file="p", first_row=first, rows=SHARD_ROWS, first_row_id=first)


def seals(first: int, count: int) -> Iterator[SealedShard]:
    """Shards as a run seals them: each by one worker, every tenth by two, some rows rejected."""
    for shard_id in range(first, first + count):
        chance = random.Random(shard_id)
        workers = chance.sample(range(WORKERS), 2 if shard_id % 10 == 0 else 1)
        rejected = int(chance.random() < 0.02)
        yield SealedShard(
            shard_id=shard_id,
            generation=0,
            epoch=2,
            attempt=1,
            committed=SHARD_ROWS - rejected,
            quarantined=rejected,
            images=SHARD_ROWS - rejected,
            image_bytes=chance.randrange(90_000_000, 110_000_000),
            shares=tuple(
                WorkerShare(
                    used_ns=chance.randrange(10**11, 2 * 10**11),
                    used_amount=chance.randrange(10**8, 2 * 10**8),
                    stamp=stamp(f"r0001-w{worker:04d}", shard_id),
                )
                for worker in workers
            ),
        )


def stamp(worker: str, seq: int) -> Stamp:
    return Stamp(
        worker=worker,
        seq=seq,
        run=1,
        node="node",
        gpus="0",
        price=PRICE,
        started_at="2026-01-01T00:00:00+00:00",
        lifetime_ns=3 * 10**12 * (seq + 1),
        busy_ns=2 * 10**12 * (seq + 1),
        overhead_ns=10**11,
        requests=Requests(),
        ticks=seq,
        occupied=8 * seq,
        offered=8 * seq,
        other_shapes=0,
        starved=0,
        closed=False,
        alive_ns=None,
        estimated_ns=0,
    )


def seal_by_records(store: Store, shard_id: int) -> None:
    """Open, commit and seal as a worker does, without objects."""
    log = ShardLog.open(store, shard_id, worker="r0001-w0000", generation=0, now=utc_now)
    assert isinstance(log, ShardLog)
    log.commit(
        Commit(
            shard_id=shard_id,
            epoch=log.epoch,
            seq=log.next_seq,
            attempt=log.attempt,
            rows=ranges_of(range(SHARD_ROWS)),
            quarantined=(),
            images=SHARD_ROWS,
            image_bytes=10**8,
            device_ns=10**11,
            amount_nano=10**8,
            metadata=None,
            quarantine=None,
            ledger=None,
            objects=(),
            stamp=stamp("r0001-w0000", shard_id),
            written_at=utc_now(),
        )
    )
    log.seal(now=utc_now)


if __name__ == "__main__":
    main()
