"""Costs by day and month: what is still to come, and lines that last over midnight."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cluster.store import Store
from jobs.cost import cost, export_focus, find_outputs
from jobs.cost.focus import focus_lines
from jobs.cost.show import answer_lines, notes
from tests.made_ledgers import image_line, made_output, other_line, worker_line

LATE = datetime(2026, 3, 30, 18, tzinfo=UTC)


def kept_on(folder: Path, now: datetime) -> Store:
    """Two images, 0.001 USD each, and 0.04 USD for keeping them 10 days before and 40 after."""
    lines = [image_line(0, start=now - timedelta(days=40)), image_line(1, start=now)]
    first, last = now - timedelta(days=10), now + timedelta(days=40)
    return made_output(folder, lines, [other_line(period_start=first, period_end=last)])


@pytest.mark.parametrize(("time", "digits"), [("day", 10), ("month", 7)])
def test_storage_to_come_is_no_trend_and_is_told_in_each_row_and_below_the_table(
    tmp_path: Path, time: str, digits: int
) -> None:
    now = datetime.now(UTC)
    told = cost([kept_on(tmp_path, now).url], [time])
    today, rows = str(now)[:digits], told.rows.to_pylist()
    assert {str(row[time]) for row in rows if row["to_come"]} == {
        str(row[time]) for row in rows if str(row[time]) > today
    }
    assert {row["cost_change"] for row in rows if row["to_come"]} == {None}
    (here,) = [row for row in rows if str(row[time]) == today]
    assert here["cost_change"] is not None
    table = answer_lines(told)
    for row in rows:
        (line,) = [text for text in table if text.startswith(str(row[time]))]
        assert (" (to come) " in line) == row["to_come"]
    ahead = sum((row["cost"] for row in rows if row["to_come"]), Decimal(0))
    (note,) = [line for line in notes(told) if line.startswith("to come ")]
    last = str(now + timedelta(days=40))[:digits]
    begin = f"to come    images are kept until {last}, and their storage lies on the days for which"
    assert note.startswith(f"{begin} they are kept: {ahead:.3f}"[:-1])
    assert " of 0.042 USD is charged ahead, " in note
    assert note.endswith(f" USD lies until {today}")
    past = cost([made_output(tmp_path / "past", [image_line()]).url], [time])
    assert not [line for line in notes(past) if line.startswith("to come")]


def test_storage_to_come_without_a_price_has_no_amount_to_tell(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    kept = other_line(period_start=now, period_end=now + timedelta(days=9), amount_nano=None)
    told = cost([made_output(tmp_path, [image_line()], [kept]).url], ["day"])
    (note,) = [line for line in notes(told) if line.startswith("to come ")]
    assert note.endswith("lies on the days for which they are kept: it has no price")


def test_focus_says_what_of_it_lies_on_days_to_come(tmp_path: Path) -> None:
    outputs = find_outputs([kept_on(tmp_path, datetime.now(UTC)).url])
    done = export_focus(outputs, tmp_path / "focus.csv")
    ((currency, ahead),) = done.to_come
    assert currency == "USD"
    assert ahead == pytest.approx(32_000_000, rel=0.03)
    (line,) = [line for line in focus_lines(done) if line.startswith("to come ")]
    assert line.startswith("to come    0.0")
    assert "USD of it is storage that is charged ahead, on the days for which images" in line


def test_a_line_without_a_price_that_lasts_over_midnight_is_one_line_in_all_and_in_each_day(
    tmp_path: Path,
) -> None:
    """It begins on 30 March and lasts for four days, so for two of each month."""
    idle = worker_line(
        period_start=LATE, period_end=LATE + timedelta(days=3), amount_nano=None, gpu_ns=4000
    )
    url = made_output(tmp_path, [image_line(start=LATE)], [idle]).url
    by_day, by_month = cost([url], ["day"]), cost([url], ["month"])
    assert [row["unpriced_lines"] for row in by_day.rows.to_pylist()] == [1, 1, 1, 1]
    assert [row["unpriced_lines"] for row in by_month.rows.to_pylist()] == [1, 1]
    assert [row["lines"] for row in by_month.rows.to_pylist()] == [2, 1]
    for told in (by_day, by_month, cost([url], ["kind"]), cost([url])):
        (total,) = told.totals.to_pylist()
        assert (total["lines"], total["unpriced_lines"], told.unpriced_lines) == (2, 1, 1)
        assert "unpriced   1 line with " in "\n".join(notes(told))
    for detail in ("charge", "image"):
        done = export_focus(find_outputs([url]), tmp_path / "focus.csv", detail)
        assert done.unpriced_lines == 1
