"""``job.deadline``: what may be said, which moment it is, and how it stands."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster import layout
from conf.deadline import due, parse_deadline
from conf.errors import ConfigError, CorruptOutput
from jobs.cli import main
from jobs.configure import compose
from jobs.deadline import deadline_words, due_of, refuse_passed
from tests.small_jobs import SmallJob, prepare_small_job, small_config

STARTED = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "lasting"),
    [
        ("6h", timedelta(hours=6)),
        ("90m", timedelta(minutes=90)),
        ("1d12h30m15s", timedelta(days=1, hours=12, minutes=30, seconds=15)),
        ("1.5h", timedelta(minutes=90)),
    ],
)
def test_a_time_counts_from_the_first_start(text: str, lasting: timedelta) -> None:
    assert parse_deadline(text) == lasting
    assert due(text, STARTED) == STARTED + lasting


@pytest.mark.parametrize(
    "text", ["2026-11-23T18:00:00+01:00", "2026-11-23T17:00:00Z", "2026-11-23 17:00+00:00"]
)
def test_a_moment_is_the_same_whenever_the_job_starts(text: str) -> None:
    assert due(text, STARTED) == datetime(2026, 11, 23, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-11-23T18:00:00", "says no offset from UTC, so that it means another moment"),
        ("2026-11-23", "says no offset from UTC"),
        ("tomorrow", "expected a moment with its offset, such as 2026-11-23T18:00:00+01:00 or"),
        ("6", "or a time from the job's first start, such as 6h, 90m or 1d12h"),
        ("", "job.deadline is ''; expected a moment"),
        ("0h", "expected a time above 0 and of at most 3650 days"),
        ("9999999999999d", "expected a time above 0 and of at most 3650 days"),
    ],
)
def test_anything_else_is_refused_with_what_is_expected(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_deadline(text)
    assert f"job.deadline is '{text}'" in str(raised.value)
    assert why in str(raised.value)


@pytest.mark.parametrize("text", ["6h", "2099-11-23T18:00:00+01:00", "2099-11-23T17:00:00Z"])
def test_a_deadline_comes_through_the_command_line_as_it_was_given(text: str) -> None:
    given = ["input.path=x", "output.path=y", f"job.deadline={text}"]
    assert compose(given).job.deadline == text
    with pytest.raises(ConfigError, match="says no offset from UTC"):
        compose([*given[:2], "job.deadline=2099-11-23T17:00:00"])


def test_a_deadline_makes_no_other_job_of_it(tmp_path: Path) -> None:
    plain = small_config(tmp_path)
    assert small_config(tmp_path, {"job.deadline": "6h"}).digest() == plain.digest()


def test_a_run_and_its_plan_are_refused_when_the_deadline_has_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = [f"input.path={tmp_path}", f"output.path={output}", "engine=simulated"]
    for command in (["run"], ["plan"], ["run", "--dry-run"]):
        assert main([*command, *words, "job.deadline=2020-01-01T00:00:00Z"]) == 2
        told = capsys.readouterr().err
        assert "job.deadline=2020-01-01T00:00:00Z has passed, " in told
        assert "ago; nothing was started; give a later moment, or a time from the job's" in told
    assert not output.exists()
    assert refuse_passed(small_config(tmp_path, {"job.deadline": "1s"})).job.deadline == "1s"


def job(tmp_path: Path, deadline: str | None, *, started: datetime = STARTED) -> SmallJob:
    small = prepare_small_job(tmp_path, [{"prompt": "a"}], **{"job.deadline": deadline})
    return replace(small, job=replace(small.job, created_at=started.isoformat()))


def words(small: SmallJob, ends_at: datetime | None = None) -> str:
    return deadline_words(small.job, small.store, ends_at)


def test_a_job_without_a_deadline_says_nothing_of_one(tmp_path: Path) -> None:
    small = job(tmp_path, None)
    assert (due_of(small.job), words(small)) == (None, "")


def test_a_finished_job_held_its_deadline_or_missed_it_by_so_much(tmp_path: Path) -> None:
    small = job(tmp_path, "6h")
    finished = {"finished_at": (STARTED + timedelta(hours=5)).isoformat()}
    small.store.put(layout.manifest(0), json.dumps(finished).encode())
    assert words(small) == "2026-11-23 18:00:00+00:00: held, by 1 h 00 min"
    late = {"finished_at": (STARTED + timedelta(hours=6, minutes=2)).isoformat()}
    small.store.put(layout.manifest(0), json.dumps(late).encode())
    assert words(small) == "2026-11-23 18:00:00+00:00: missed by 2 min 00 s"
    small.store.put(layout.manifest(0), b"{}")
    with pytest.raises(CorruptOutput, match=r"manifests/.* is damaged: 'finished_at'"):
        words(small)


def test_an_open_job_says_how_long_there_is_or_when_its_end_is_expected(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    small = job(tmp_path, "2h", started=now)
    assert ": in 2 h 00 min" in words(small)
    assert "the end is expected about " in words(small, now + timedelta(hours=1))
    assert words(small, now + timedelta(hours=1)).endswith(", 1 h 00 min before")
    assert words(small, now + timedelta(hours=3)).endswith(", 1 h 00 min too late")


def test_an_open_job_whose_deadline_has_passed_says_so(tmp_path: Path) -> None:
    small = job(tmp_path, "2h", started=datetime.now(UTC) - timedelta(hours=3))
    assert words(small).endswith(": passed 1 h 00 min ago")
    assert words(small, datetime.now(UTC)).endswith(": passed 1 h 00 min ago")
