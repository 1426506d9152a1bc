"""``imagemill verify``: account for every row of an output and re-read every sha256 in it.

Reads only the store, a few shards at a time, so that memory does not grow with the job. Owns what
must hold for the job as a whole; what must hold inside a shard is ``jobs.shard_check``'s. Trusts no
checkpoint.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from cluster import layout
from cluster.job_log import generation, read_job
from cluster.money import as_decimal, price_of
from cluster.plan_file import PlanReader
from cluster.records import Shard
from cluster.shard_log import ShardState
from cluster.store import Store
from cluster.totals import Bill, Totals, add_stamps, close
from conf.errors import StoreRefused
from jobs.checkpoint_check import CheckpointCheck
from jobs.figures import plural
from jobs.shard_check import Findings, ShardCheck

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found. ``objects`` were read and hashed, the images inside containers among them.

    An unfinished job is ``ok`` when what it holds is whole; its rows are then partly ``pending``.
    """

    url: str
    finished: bool
    rows: int
    committed: int
    quarantined: int
    pending: int
    shards: int
    sealed: int
    images: int
    objects: int
    bill: Bill
    currency: str
    problems: tuple[str, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, damaged or doubled."""
        return self.problem_count == 0


def verify(store: Store, *, threads: int = 8, on_progress: Progress | None = None) -> Verification:
    """Check an output as a whole, finished or not.

    Args:
        threads: how many shards, and beside them how many image objects, are read at a time.
        on_progress: called with the shards checked so far and their number.

    Raises:
        OutputMissing: no job or no plan lives there.
        StoreUnavailable: the store did not answer; nothing can be said.
    """
    job = read_job(store)
    plan = PlanReader(store)
    findings = Findings()
    totals = Totals(rows=plan.rows, shards=plan.shards)
    checkpoint = CheckpointCheck(store, findings)
    for number, (state, found) in enumerate(_checked_shards(store, plan, threads), start=1):
        findings.merge(found)
        checkpoint.compare(number - 1, state)
        if state is not None:
            totals.sealed += state.sealed
            for item in state.commits:
                totals.add_commit(item.commit, quarantine=item.quarantine)
        if on_progress is not None:
            on_progress(number, plan.shards)
    _check_plan(plan, findings)
    add_stamps(store, totals)
    checkpoint.finish(totals)
    bill = close(totals, price_of(job.config.pricing))
    _check_bill(bill, findings)
    finished = _check_manifest(store, totals, bill, findings)
    return Verification(
        url=store.url,
        finished=finished,
        rows=totals.rows,
        committed=totals.committed,
        quarantined=totals.quarantined,
        pending=totals.pending,
        shards=totals.shards,
        sealed=totals.sealed,
        images=totals.images,
        objects=findings.objects,
        bill=bill,
        currency=job.config.pricing.currency,
        problems=tuple(findings.sentences),
        problem_count=findings.count,
    )


def report_lines(verification: Verification) -> list[str]:
    """The verification for the terminal."""
    v = verification
    state = "finished" if v.finished else "not finished"
    lines = [
        f"rows       {v.rows:,}: {v.committed:,} committed, {v.quarantined:,} quarantined, "
        f"{v.pending:,} pending ({state})",
        f"shards     {v.sealed:,} of {v.shards:,} sealed",
        f"images     {v.images:,}; {v.objects:,} objects read and compared",
        f"cost       {as_decimal(v.bill.total_amount):f} {v.currency} billed, "
        f"{as_decimal(sum(v.bill.amount.values())):f} on the lines",
        *(f"problem    {sentence}" for sentence in v.problems),
    ]
    if v.problem_count > len(v.problems):
        lines.append(f"problem    and {v.problem_count - len(v.problems):,} more")
    if not v.ok:
        lines.append(
            f"result     {plural(v.problem_count, 'problem')}: {shlex.quote(v.url)} is not what "
            "its commits say"
        )
    elif v.finished:
        lines.append("result     everything is there, once, and as it was committed")
    else:
        lines.append(
            f"result     what is there is whole; {_pending(v.pending)}, go on with "
            f"imagemill resume {shlex.quote(v.url)}"
        )
    return lines


def _pending(rows: int) -> str:
    return f"{plural(rows, 'row')} {'is' if rows == 1 else 'are'} pending"


def _checked_shards(
    store: Store, plan: PlanReader, threads: int
) -> Iterator[tuple[ShardState | None, Findings]]:
    """Every shard's state and problems in plan order, read a few shards ahead."""
    with ThreadPoolExecutor(threads, "shards") as shards, ThreadPoolExecutor(threads, "io") as io:

        def check(shard: Shard) -> tuple[ShardState | None, Findings]:
            return ShardCheck(store, shard, io).run()

        ahead: list[Shard] = []
        for shard in plan.iter_shards():
            ahead.append(shard)
            if len(ahead) == 4 * threads:
                yield from shards.map(check, ahead)
                ahead = []
        yield from shards.map(check, ahead)


def _check_plan(plan: PlanReader, findings: Findings) -> None:
    """The shards cover the rows of the input, each row once."""
    shards = rows = 0
    for shard in plan.iter_shards():
        if (shard.shard_id, shard.first_row_id) != (shards, rows):
            findings.add(
                f"{layout.PLAN_SHARDS}: shard {shard.shard_id} begins at row {shard.first_row_id}; "
                f"expected shard {shards} at row {rows}"
            )
        shards, rows = shards + 1, rows + shard.rows
    findings.expect(f"the rows of {layout.PLAN_SHARDS}", found=rows, expected=plan.rows)


def _check_bill(bill: Bill, findings: Findings) -> None:
    lines_ns, lines_amount = sum(bill.ns.values()), sum(bill.amount.values())
    findings.expect("the time on all ledger lines", found=lines_ns, expected=bill.total_ns)
    findings.expect(
        "the amount on all ledger lines", found=lines_amount, expected=bill.total_amount
    )


def _check_cost(key: str, said: object, billed: Decimal, findings: Findings) -> None:
    """A worker that was frozen when the manifest was written may have lived on: then more is
    billed. Less never is."""
    try:
        fits = Decimal(str(said)) <= billed
    except InvalidOperation:
        fits = False
    if not fits:
        findings.add(f"'cost' in {key} is {said}; expected {billed:f}, or less")


def _check_manifest(store: Store, totals: Totals, bill: Bill, findings: Findings) -> bool:
    """Compare the newest generation's manifest with what counts; returns whether there is one."""
    key = layout.manifest(generation(store))
    try:
        data = store.get(key)
        if data is None:
            return False
        plain = json.loads(data)
    except StoreRefused as error:
        findings.add(str(error))
        return True
    except ValueError as error:
        findings.add(f"{key} is not JSON: {error}")
        return True
    expected: dict[str, object] = {
        name: getattr(totals, name)
        for name in ("rows", "committed", "quarantined", "images", "image_bytes", "shards")
    }
    for name, value in expected.items():
        findings.expect(f"'{name}' in {key}", found=plain.get(name), expected=value)
    _check_cost(key, plain.get("cost"), as_decimal(bill.total_amount), findings)
    if totals.sealed != totals.shards:
        findings.add(
            f"{key} says that the job is finished although only {totals.sealed} of {totals.shards} "
            "shards are sealed"
        )
    return True
