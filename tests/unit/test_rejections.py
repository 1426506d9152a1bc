"""Why rows are quarantined is told in a few lines, and costs no more with more of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import layout
from cluster.supervisor import RunEnd
from conf.errors import CorruptOutput
from jobs.finish import finish
from jobs.rejections import MOST_TABLES, Rejections, reason_lines, rejections
from jobs.report.survey import Example, ReasonCount, survey
from jobs.status import status, status_lines
from tests.small_jobs import SmallJob, run_small_job
from tests.snapshots import snapshot_of

TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}
FINE = {"prompt": "fine"}
EVERY = FINE | dict.fromkeys(("id", "sampler", "width", "seed", "steps"))
KINDS = [
    *[{"prompt": "", "id": f"empty-{number}"} for number in range(4)],
    *[{"prompt": "a", "sampler": "eulr"}] * 3,
    *[{"prompt": "a", "width": 17}] * 2,
    {"prompt": "a", "seed": -1},
    {"prompt": "a", "steps": 0},
]
EMPTY = "the prompt is empty; expected some text"


def made(tmp_path: Path, rows: list[dict[str, Any]], **how: Any) -> SmallJob:
    return run_small_job(tmp_path, rows, **TINY, **how)


def why(lines: list[str]) -> list[str]:
    return [line[11:] for line in lines if line.startswith("why  ")]


def end_of_run() -> RunEnd:
    return RunEnd(finished=True, reason="finished", restarts=0, snapshot=snapshot_of())


def test_the_most_frequent_reasons_come_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    small = made(tmp_path, [EVERY, *KINDS])
    found = rejections(small.store, small.plan, 11)
    assert (found.seen, found.kinds, found.at_read, found.whole) == (11, 5, 11, True)
    first, second, third, rest = reason_lines(found)
    assert first == f"why        4 rows, empty_prompt at read; row 1 (id empty-0): {EMPTY}"
    assert second.startswith("why        3 rows, unknown_sampler at read; row 5: ")
    assert third.startswith("why        2 rows, bad_size at read; row 8: width is 17")
    assert rest == "why        2 rows of 2 more kinds: see quarantine/ and the report"


def test_one_kind_more_is_told_in_the_place_of_that_there_is_one(tmp_path: Path) -> None:
    small = made(tmp_path, [EVERY, *KINDS[:-1]])
    lines = reason_lines(rejections(small.store, small.plan, 10))
    assert len(lines) == 4
    assert lines[-1].startswith("why        1 row, bad_seed at read; row 10: ")


def test_no_more_tables_are_read_than_a_few_however_many_there_are(tmp_path: Path) -> None:
    small = made(tmp_path, [{"prompt": ""}] * 20)
    tables = [entry.key for entry in small.store.listing("quarantine/")]
    assert len(tables) == 5
    for key in tables[2:]:  # so that reading one would be told
        small.store.delete(key)
    found = rejections(small.store, small.plan, 20, most_tables=2)
    assert (found.seen, found.rows, found.whole, found.hopeless) == (8, 20, False, False)
    assert reason_lines(found) == [
        f"why        8 rows, empty_prompt at read; row 0: {EMPTY}",
        "why        counted over the first 8 of 20 quarantined rows; quarantine/ has all",
    ]


def test_a_table_that_is_gone_hides_the_reasons_and_nothing_else(tmp_path: Path) -> None:
    small = made(tmp_path, [FINE, {"prompt": ""}])
    (entry,) = small.store.listing("quarantine/")
    small.store.delete(entry.key)
    lines = status_lines(status(small.store, watch_s=0.02))
    assert why(lines) == [f"not known: {entry.key} is named by a counted commit but does not exist"]
    assert "rows       2: 1 committed, 1 quarantined, 0 pending" in lines


def test_a_damaged_table_hides_the_reasons_and_nothing_else(tmp_path: Path) -> None:
    small = made(tmp_path, [FINE, {"prompt": ""}])
    (entry,) = small.store.listing("quarantine/")
    small.store.put(entry.key, b"PAR1 it was a table once")
    lines = status_lines(status(small.store, watch_s=0.02))
    (said,) = why(lines)
    assert said.startswith(f"not known: {entry.key} is damaged: ")
    assert "rows       2: 1 committed, 1 quarantined, 0 pending" in lines
    with pytest.raises(CorruptOutput, match=r"imagemill verify .* names all that is missing"):
        finish(small.store, small.job, small.plan, generation=0, end=end_of_run(), wall_s=1.0)


def test_status_tells_the_reasons_of_a_job_that_is_not_finished(tmp_path: Path) -> None:
    small = made(tmp_path, [{"prompt": ""}, FINE] * 6, shards=[1])
    lines = status_lines(status(small.store, watch_s=0.02))
    assert why(lines) == [f"2 rows, empty_prompt at read; row 4: {EMPTY}"]
    place = lines.index("rows       12: 2 committed, 2 quarantined, 8 pending")
    assert lines[place + 1].startswith("why  "), "beside what it explains"


def test_status_says_what_it_knows_of_rows_that_only_the_input_mends(tmp_path: Path) -> None:
    small = made(tmp_path, [{"prompt": ""}] * 4)
    small.store.put_if_absent(layout.manifest(0), b"{}")
    found = replace(
        status(small.store, watch_s=0.02), rejected=Rejections(rows=4, seen=3, kinds=1, at_read=2)
    )
    assert status_lines(found)[-1].endswith("again; at least 2 of them only the input mends")


def test_the_end_of_a_run_tells_what_the_report_counted(tmp_path: Path) -> None:
    rows = [{"prompt": ""}] * 4 * (MOST_TABLES + 1)
    small = made(tmp_path, rows)
    ended = finish(small.store, small.job, small.plan, generation=0, end=end_of_run(), wall_s=1.0)
    assert ended.rejected == Rejections.of(survey(small.store, small.plan), rows=len(rows))
    assert ended.rejected.whole, "although it is more than is read without a report"
    assert rejections(small.store, small.plan, len(rows)).seen == 4 * MOST_TABLES


def test_without_a_report_the_end_of_a_run_reads_the_first_tables(tmp_path: Path) -> None:
    small = made(tmp_path, [FINE, {"prompt": ""}] * 4, shards=[1])
    stopped = replace(end_of_run(), finished=False, reason="taken over")
    ended = finish(
        small.store, small.job, small.plan, generation=0, end=stopped, wall_s=1.0, ours=False
    )
    assert ended.written == ()
    assert ended.rejected is not None
    assert (ended.rejected.seen, ended.rejected.whole) == (2, True)


def test_a_job_without_quarantined_rows_says_nothing_of_reasons(tmp_path: Path) -> None:
    small = made(tmp_path, [FINE])
    assert status(small.store, watch_s=0.02).rejected is None


@pytest.mark.parametrize(
    ("message", "shown"),
    [("two\nlines", "two lines"), ("\x1b[31mred\x07", "[31mred"), ("x" * 999, "x" * 159 + "…")],
)
def test_what_a_row_holds_cannot_break_the_line(message: str, shown: str) -> None:
    example = Example(row_id=1234, label="i\nd", file="f", row_in_file=4, message=message)
    reason = ReasonCount(stage="denoise", reason="nan", rows=1, examples=(example,))
    found = Rejections(rows=1, seen=1, kinds=1, reasons=(reason,))
    assert reason_lines(found) == [f"why        1 row, nan at denoise; row 1,234 (id i d): {shown}"]
