"""The summary's lines, and how amounts, times and shares are written for people."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shard_records import PRICE

from cluster.records import Stamp
from cluster.tables import to_parquet
from cluster.traffic import Requests
from conf.secrets import without_secrets
from jobs.figures import (
    ReportFacts,
    active_seconds,
    duration,
    figures_of,
    format_money,
    money,
    named_once,
    number,
    share,
    size,
    why_empty,
)
from jobs.finish import Finish
from jobs.rejections import rejections
from jobs.summary import summary_lines
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job


def ended(small: SmallJob, facts: ReportFacts | None = None) -> Finish:
    totals = small.totals()
    return Finish(
        finished=totals.sealed == totals.shards,
        totals=totals,
        bill=small.bill(),
        broken_files=(),
        facts=facts or ReportFacts(wall_s=2.0),
        written=("report.html",),
        rejected=rejections(small.store, small.plan, totals.quarantined)
        if totals.quarantined
        else None,
    )


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", "0 USD"),
        ("0.000123", "0.000123 USD"),
        ("0.000000001", "0.000000001 USD"),
        ("0.00000000000123456", "0.00000000000123 USD"),
        ("0.1", "0.10 USD"),
        ("0.0456789", "0.0457 USD"),
        ("0.9999", "1.00 USD"),
        ("1.005", "1.01 USD"),
        ("1234567.891", "1,234,567.89 USD"),
    ],
)
def test_money_is_never_zero_unless_it_is(amount: str, expected: str) -> None:
    assert money(Decimal(amount), "USD") == expected


def test_format_money_takes_billionths() -> None:
    assert format_money(123_000, "EUR") == "0.000123 EUR"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (4.8e-5, "48 µs"),
        (0.0123, "12.3 ms"),
        (0.9999, "1 s"),
        (1.25, "1.25 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (3599.9, "1 h 00 min"),
        (7260, "2 h 01 min"),
        (200_000, "2 d 07 h"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_numbers_sizes_shares_and_urls() -> None:
    assert [number(0.01234), number(71.8), number(1234.5), number(3.0)] == [
        "0.0123",
        "71.8",
        "1,234",
        "3",
    ]
    assert [size(0), size(999), size(42_600), size(2 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "42.6 kB",
        "2 TB",
    ]
    assert [share(0), share(0.0001), share(0.5), share(0.99999), share(1)] == [
        "0 %",
        "under 0.1 %",
        "50 %",
        "over 99.9 %",
        "100 %",
    ]
    assert without_secrets("s3://key:pass@host/x") == "s3://…@host/x"
    assert without_secrets("/home/me@work/out") == "/home/me@work/out"


def test_the_time_of_workers_that_overlap_counts_once() -> None:
    stamp = Stamp(
        worker="w",
        seq=0,
        run=1,
        node="n",
        gpus="",
        price=PRICE,
        started_at="2026-01-01T00:00:00.000000+00:00",
        lifetime_ns=10 * 10**9,
        busy_ns=0,
        overhead_ns=0,
        requests=Requests(),
        ticks=0,
        occupied=0,
        offered=0,
        other_shapes=0,
        starved=0,
        closed=True,
        alive_ns=None,
        estimated_ns=0,
    )
    beside = replace(stamp, started_at="2026-01-01T00:00:05.000000+00:00")
    inside = replace(beside, lifetime_ns=10**9)
    later = replace(stamp, started_at="2026-01-02T00:00:00.000000+00:00")
    assert active_seconds([]) == 0
    assert active_seconds([later, stamp, beside, inside]) == pytest.approx(25)


def test_small_numbers_have_no_exponent() -> None:
    assert [number(value) for value in (0.0000763, 0.00104, 1e-9)] == [
        "0.0000763",
        "0.00104",
        "0.000000001",
    ]


def test_empty_slots_are_told_by_their_reason(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": f"picture {i}"} for i in range(6)])
    totals, closing = small.totals(), small.bill()
    figures = figures_of(totals, closing)
    assert figures.fill is not None
    assert figures.fill + sum(part for _, part in figures.empty) == pytest.approx(1)
    (worker, use) = next(iter(totals.workers.items()))
    told = replace(
        use, stamp=replace(use.stamp, offered=200, occupied=150, other_shapes=30, starved=18)
    )
    figures = figures_of(replace(totals, workers={worker: told}), closing)
    assert why_empty(figures) == (
        "15 % empty beside rows of other sizes, 9 % waited for rows, 1 % empty at the end"
    )


def test_a_finished_job_in_a_few_lines(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": f"picture {i}"} for i in range(6)])
    lines = summary_lines(small.job, ended(small), 0)
    text = "\n".join(lines)
    assert len(lines) <= 15
    assert "6: 6 committed, 0 quarantined, 0 pending" in text
    assert "SIMULATED" in text
    assert "images/s" in text
    assert "USD an image" in text
    assert small.config.output.path in text
    assert "imagemill" not in text, "nothing is left to do"


def test_an_unfinished_job_names_the_command_that_goes_on(tmp_path: Path) -> None:
    rows = [{"prompt": f"picture {i}"} for i in range(12)]
    small = run_small_job(tmp_path, rows, shards=[0])
    facts = ReportFacts(
        wall_s=3.0, restarts=2, reason="cancelled", broken_files=("a: x", "b: y", "c: z", "d: q")
    )
    lines = summary_lines(small.job, ended(small, facts), 3)
    text = "\n".join(lines)
    assert len(lines) <= 15
    assert "8 pending" in text
    assert "2 workers replaced" in text
    assert "2 more input files" in text
    assert "stopped    cancelled" in text
    assert lines[-1].strip() == f"next       imagemill resume {small.config.output.path}"


@pytest.mark.parametrize(
    ("shards", "kept"),
    [([0], "what is committed here stays"), ([], "nothing was committed, so {} may be deleted")],
)
def test_a_job_that_can_never_go_on_is_to_be_started_anew(
    tmp_path: Path, shards: list[int], kept: str
) -> None:
    small = run_small_job(tmp_path, [{"prompt": "a"}] * 12, shards=shards)
    facts = ReportFacts(wall_s=3.0, reason="engine.attention=flash cannot", futile=True)
    last = summary_lines(small.job, ended(small, facts), 3)[-1]
    expected = f"start again with another output.path; {kept}"
    assert last == f"next       {expected.format(small.config.output.path)}"


def test_too_many_quarantined_rows_are_explained(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": ""}, {"prompt": "fine"}])
    lines = summary_lines(small.job, ended(small), 1)
    assert lines[1] == (
        "why        1 row, empty_prompt at read; row 0: the prompt is empty; expected some text"
    )
    assert "50 % of the rows are quarantined; job.max_quarantined=0.01 allows 1 %" in "\n".join(
        lines
    )
    assert lines[-1] == "next       mend these rows in the input and run them as a new job"


def test_rows_that_failed_later_than_reading_are_worth_a_retry(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": ""}, {"prompt": "fine"}])
    for entry in small.store.listing("quarantine/"):
        table = pq.read_table(io.BytesIO(small.store.get(entry.key) or b""))
        place = table.column_names.index("stage")
        table = table.set_column(place, "stage", [["denoise"] * table.num_rows])
        small.store.put(entry.key, to_parquet(table))
    lines = summary_lines(small.job, ended(small), 1)
    assert lines[-1].startswith("next       imagemill retry ")


def test_a_file_that_was_left_out_explains_the_exit_status(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": "fine"}])
    facts = ReportFacts(broken_files=("/in/b.parquet: /in/b.parquet is no Parquet file: magic",))
    text = "\n".join(summary_lines(small.job, ended(small, facts), 1))
    assert "left out   /in/b.parquet is no Parquet file: magic" in text
    assert text.count("/in/b.parquet") == 1
    assert (
        "exit 1     1 input file was left out; the plan is fixed, so mend it and start a new job "
        "with it" in text
    )


def test_a_problem_names_its_file_once() -> None:
    assert named_once("a.csv: a.csv is bad: a.csv: x") == "a.csv is bad: a.csv: x"
    assert named_once("a: b: a: b is bad") == "a: b is bad"
    assert named_once("a.csv: a.csvx is bad") == "a.csv: a.csvx is bad"
    assert named_once("gone") == "gone"


def test_a_job_that_never_began_has_a_summary(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "x"}])
    lines = summary_lines(small.job, ended(small, ReportFacts()), 3)
    assert "cost       0 USD" in lines
    assert lines[-1].startswith("next       imagemill resume ")


def test_a_message_of_many_lines_stays_one_line(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "x"}])
    lines = summary_lines(small.job, ended(small, ReportFacts(reason="a\nb" + "c" * 999)), 3)
    assert all("\n" not in line and len(line) <= 300 for line in lines)
