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

import pyarrow as pa

from cluster import layout
from cluster.job_log import as_last_run, generation, read_job
from cluster.money import as_decimal
from cluster.plan_file import PlanReader
from cluster.records import Shard
from cluster.shard_log import ShardState
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import Bill, Totals, add_stamps, close
from conf.errors import StoreRefused
from jobs.checkpoint_check import CheckpointCheck
from jobs.figures import COST_UNKNOWN, cost_unknown, plural, unpriced
from jobs.image_costs import cost_problems
from jobs.shard_check import Findings, ShardCheck

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found. ``objects`` were read and hashed, the images inside containers among them.

    An unfinished job is ``ok`` when what it holds is whole; its rows are then partly ``pending``.
    ``outlived``: what to know of workers that are billed for longer than the manifest knew, or "".
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
    outlived: str
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
    job = as_last_run(store, read_job(store))
    plan = PlanReader(store)
    findings = Findings()
    totals = _check_shards(store, plan, findings, threads, on_progress)
    _check_plan(plan, findings)
    bill = close(totals, job.config.pricing.storage_months)
    _check_bill(bill, findings)
    finished, cost = _check_manifest(store, totals, bill, findings)
    if finished and cost == _cost(bill):
        _check_worker_lines(store, bill, findings)
        for problem in cost_problems(store, job, totals, bill):
            findings.add(f"{problem}; {_anew(store)}")
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
        currency=job.currency,
        outlived=_outlived(store, cost, bill),
        problems=tuple(findings.sentences),
        problem_count=findings.count,
    )


def report_lines(verification: Verification) -> list[str]:
    """The verification for the terminal."""
    v = verification
    state = "finished" if v.finished else "not finished"
    known = (
        f"{as_decimal(v.bill.total_amount):f} {v.currency} billed, "
        f"{as_decimal(sum(v.bill.amount.values())):f} on the lines"
    )
    lines = [
        f"rows       {v.rows:,}: {v.committed:,} committed, {v.quarantined:,} quarantined, "
        f"{v.pending:,} pending ({state})",
        f"shards     {v.sealed:,} of {v.shards:,} sealed",
        f"images     {v.images:,}; {v.objects:,} objects read and compared",
        f"cost       {COST_UNKNOWN if cost_unknown(v.bill) else known}",
        *([f"unpriced   {unpriced(v.bill)}"] if unpriced(v.bill) else []),
        *([f"outlived   {v.outlived}"] if v.outlived else []),
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


def _check_shards(
    store: Store,
    plan: PlanReader,
    findings: Findings,
    threads: int,
    on_progress: Progress | None,
) -> Totals:
    """Check every shard, and the checkpoint beside them; returns what they sum up to."""
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
    add_stamps(store, totals)
    checkpoint.finish(totals)
    return totals


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


def _cost(bill: Bill) -> Decimal | None:
    """What a manifest says that it cost; None where no worker has a price."""
    return None if cost_unknown(bill) else as_decimal(bill.total_amount)


def _check_cost(key: str, said: object, bill: Bill, findings: Findings) -> Decimal | None:
    """The manifest's cost. A worker that was frozen when it was written may have lived on: then
    more is billed. Less never is."""
    billed = _cost(bill)
    if billed is None:
        findings.expect(f"'cost' in {key}", found=said, expected=None)
        return None
    try:
        cost = Decimal(str(said))
        if cost <= billed:
            return cost
    except InvalidOperation:
        pass
    findings.add(f"'cost' in {key} is {said}; expected {billed:f}, or less")
    return None


def _check_worker_lines(store: Store, bill: Bill, findings: Findings) -> None:
    """What was written of a finished job's workers is what their lifetimes come to."""
    found, expected = _ledger_amount(store), bill.total_amount - bill.amount["used"]
    if found != expected:
        lines = "cannot be read" if found is None else f"come to {as_decimal(found):f}"
        findings.add(
            f"the lines in {layout.WORKER_LEDGER} {lines}; expected {as_decimal(expected):f}; "
            f"{_anew(store)}"
        )


def _anew(store: Store) -> str:
    return f"'imagemill report {shlex.quote(store.url)}' writes them anew"


def _outlived(store: Store, cost: Decimal | None, bill: Bill) -> str:
    """Where more is billed than the manifest says: why, and whether the ledger has it."""
    billed = as_decimal(bill.total_amount)
    if cost is None or cost == billed:
        return ""
    others = bill.total_amount - bill.amount["used"]
    return f"workers lived on after the end, when the cost was {cost:f}: " + (
        "the ledger has been renewed since"
        if _ledger_amount(store) == others
        else f"'imagemill report {shlex.quote(store.url)}' renews the ledger"
    )


def _ledger_amount(store: Store) -> int | None:
    """The sum of the workers' ledger, in 1e-9 currency units; None where it cannot be read."""
    try:
        lines = read_parquet(store.get(layout.WORKER_LEDGER) or b"", ["amount_nano"])
        return int(sum(amount or 0 for amount in lines["amount_nano"].to_pylist()))
    except (pa.ArrowException, OSError, KeyError, StoreRefused):
        return None


def _check_manifest(
    store: Store, totals: Totals, bill: Bill, findings: Findings
) -> tuple[bool, Decimal | None]:
    """Compare the newest generation's manifest with what counts; returns whether there is one and,
    where it can be true, the cost in it."""
    key = layout.manifest(generation(store))
    try:
        data = store.get(key)
        if data is None:
            return False, None
        plain = json.loads(data)
    except StoreRefused as error:
        findings.add(str(error))
        return True, None
    except ValueError as error:
        findings.add(f"{key} is not JSON: {error}")
        return True, None
    expected: dict[str, object] = {
        name: getattr(totals, name)
        for name in ("rows", "committed", "quarantined", "images", "image_bytes", "shards")
    }
    for name, value in expected.items():
        findings.expect(f"'{name}' in {key}", found=plain.get(name), expected=value)
    cost = _check_cost(key, plain.get("cost"), bill, findings)
    if totals.sealed != totals.shards:
        findings.add(
            f"{key} says that the job is finished although only {totals.sealed} of {totals.shards} "
            "shards are sealed"
        )
    return True, cost
