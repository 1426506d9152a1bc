"""Measure how long ``imagemill cost`` takes over many millions of ledger lines, and in what memory.

    python -m benchmarks.ledger_lines --output out/lines --lines 10000000

Builds a finished output once: plan, opening and commit records of every shard, and for each commit
a ledger object with the lines of its images, as a job writes them by default (256 images a commit,
4,096 rows a shard). The records are those of the real classes; the ledger objects are copies of 64
different ones, written without a sync, so that building takes minutes and not hours. Then it asks,
each question in a process of its own. Peak memory is Linux's high-water mark of resident memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from benchmarks.resume_million import PRICE, measured, stamp
from cluster import layout
from cluster.job_log import JobRecord, write_job
from cluster.ledger import LEDGER
from cluster.lifetime import utc_now
from cluster.plan_file import InputFile, write_plan
from cluster.records import Accepted, Commit, ObjectRef, Opening, Shard, to_json
from cluster.store import Store
from cluster.tables import to_parquet
from jobs.configure import compose
from jobs.cost import cost, export_focus, find_outputs
from jobs.execute import version

SHARD_ROWS = 4096
COMMIT_IMAGES = 256
DISTINCT = 64
DAYS = 30
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
QUESTIONS = ("model,day", "tag:customer", "kind", "focus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="out/lines")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--ask", choices=QUESTIONS, help="one question, in this process")
    parser.add_argument("--only", choices=QUESTIONS, action="append", help="may repeat")
    arguments = parser.parse_args()
    where = Path(arguments.output).absolute()
    if arguments.ask:
        print(json.dumps(measured(lambda store: ask(store, arguments.ask), Store(str(where)))))
        return
    store = Store(str(where))
    if not store.exists(layout.manifest(0)):
        build(store, where, arguments.lines)
    print("\n| question | seconds | CPU seconds | peak MiB | MiB before |\n|---|---|---|---|---|")
    for question in arguments.only or QUESTIONS:
        found = in_a_process_of_its_own(question, str(where))
        times = f"{found['seconds']:.1f} | {found['cpu_seconds']:.1f}"
        print(f"| {question} | {times} | {found['peak']:.0f} | {found['before']:.0f} |", flush=True)


def ask(store: Store, question: str) -> None:
    """Ask, and prove that every line was read."""
    if question == "focus":
        path = Path(store.url) / "focus.parquet"
        done = export_focus(find_outputs([store.url]), path)
        print(f"{done.charges:,} charges")
        path.unlink()
        return
    told = cost([store.url], [question])
    print(f"{told.rows.num_rows:,} rows, {told.totals['images'][0].as_py():,} images")


def in_a_process_of_its_own(question: str, output: str) -> dict[str, float]:
    """One question; nothing that was read before helps it but the system's page cache."""
    command = [sys.executable, "-m", "benchmarks.ledger_lines", "--output", output]
    done = subprocess.run(
        [*command, "--ask", question], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def build(store: Store, where: Path, lines: int) -> None:
    """The output: claimed, planned, committed, sealed and finished."""
    started_s = time.perf_counter()
    config = compose(["input.path=prompts.parquet", f"output.path={store.url}", "engine=simulated"])
    write_job(
        store,
        JobRecord(
            config=config,
            digest=config.digest(),
            version=version(),
            model_revision="simulated",
            created_at=utc_now(),
        ),
    )
    shards = -(-lines // SHARD_ROWS)
    file = InputFile(
        index=0, file="p", source="p", bytes=1, fingerprint="x", rows=shards * SHARD_ROWS
    )
    write_plan(store, [file], (planned(shard_id) for shard_id in range(shards)))
    (where / "ledger").mkdir(exist_ok=True)
    objects = [to_parquet(ledger(number)) for number in range(DISTINCT)]
    digests = [hashlib.sha256(data).hexdigest() for data in objects]
    for shard_id in range(shards):
        write_shard(where, shard_id, objects, digests)
        if shard_id % 1000 == 0:
            print(f"{shard_id * SHARD_ROWS:,} lines, {time.perf_counter() - started_s:.0f} s")
    store.put(layout.WORKER_LEDGER, to_parquet(LEDGER.empty_table()))
    store.put(layout.manifest(0), b"{}")
    size = sum(len(data) for data in objects) / DISTINCT
    print(f"{shards * SHARD_ROWS:,} lines in objects of {size:,.0f} bytes")


def planned(shard_id: int) -> Shard:
    first = shard_id * SHARD_ROWS
    return Shard(shard_id=shard_id, file="p", first_row=first, rows=SHARD_ROWS, first_row_id=first)


def write_shard(where: Path, shard_id: int, objects: list[bytes], digests: list[str]) -> None:
    """A sealed shard: an opening, its commits with their ledger objects, the seal."""
    for folder in (layout.openings(shard_id), layout.commits(shard_id)):
        (where / folder).mkdir(parents=True)
    for record in records(shard_id, objects, digests):
        if isinstance(record, Commit):
            key = layout.commit(shard_id, 1, record.seq)
            assert record.ledger is not None
            place = (shard_id + record.seq) % DISTINCT
            (where / record.ledger.key).write_bytes(objects[place])
        else:
            key = layout.opening(shard_id, record.epoch)
        (where / key).write_bytes(to_json(record))


def records(shard_id: int, objects: list[bytes], digests: list[str]) -> Iterator[Commit | Opening]:
    """What a worker writes for a shard that goes well."""
    yield opening(shard_id, 1, ())
    keys = []
    for seq in range(SHARD_ROWS // COMMIT_IMAGES):
        place = (shard_id + seq) % DISTINCT
        key = layout.attempt_object("ledger", shard_id, 1, seq, "parquet")
        keys.append(layout.commit(shard_id, 1, seq))
        yield Commit(
            shard_id=shard_id,
            epoch=1,
            seq=seq,
            attempt=1,
            rows=((seq * COMMIT_IMAGES, (seq + 1) * COMMIT_IMAGES),),
            quarantined=(),
            images=COMMIT_IMAGES,
            image_bytes=10**8,
            device_ns=10**11,
            amount_nano=10**8,
            metadata=None,
            quarantine=None,
            ledger=ObjectRef(key=key, bytes=len(objects[place]), sha256=digests[place]),
            objects=(),
            stamp=stamp("r0001-w0000", seq),
            written_at=utc_now(),
        )
    yield opening(shard_id, 2, tuple(Accepted(key=key, quarantine=True) for key in keys))


def opening(shard_id: int, epoch: int, accepted: tuple[Accepted, ...]) -> Opening:
    return Opening(
        shard_id=shard_id,
        epoch=epoch,
        attempt=1,
        worker="r0001-w0000",
        nonce="0",
        opened_at=utc_now(),
        accepted=accepted,
        sealed=epoch > 1,
        generation=0,
    )


def ledger(number: int) -> pa.Table:
    """The lines of a commit: two models, four samplers, fifty customers, on one of the days."""
    chance = random.Random(number)
    return pa.Table.from_pylist([line(number, i, chance) for i in range(COMMIT_IMAGES)], LEDGER)


def line(number: int, index: int, chance: random.Random) -> dict[str, object]:
    row_id = number * COMMIT_IMAGES + index
    start = FIRST + timedelta(days=number % DAYS, seconds=index)
    gpu_ns = chance.randrange(10**9, 3 * 10**9)
    return {
        "line_id": f"r0001-w0000:{row_id}-0",
        "kind": "used",
        "job": "million",
        "project": "bench",
        "tags": [("customer", f"c{chance.randrange(50)}"), ("team", "x")],
        "worker": f"r0001-w{number % 8:04d}",
        "node": f"node-{number % 8}",
        "image_id": f"{row_id}-0",
        "row_id": row_id,
        "model": "sdxl" if number % 2 else "pixart",
        "sampler": chance.choice(["euler", "ddim", "dpmpp_2m", "unipc"]),
        "width": 1024,
        "height": 1024,
        "steps": chance.choice([20, 30]),
        "period_start": start,
        "period_end": start + timedelta(microseconds=gpu_ns // 1000),
        "gpu_ns": gpu_ns,
        "amount_nano": 3_600_000_000 * gpu_ns // (3600 * 10**9),
        "currency": PRICE.currency,
        "provider": "aws",
        "region": "us-east-1",
        "instance_type": "p5.4xlarge",
        "purchase_option": "spot",
        "price_nano_per_hour": 3_600_000_000,
        "price_version": "2026-03",
        "price_digest": "abc",
    }


if __name__ == "__main__":
    main()
