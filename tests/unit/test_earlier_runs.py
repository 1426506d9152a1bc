"""Earlier runs of this machine: which a quote goes by, and what it says of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from input_tables import prompts, write_rows

from jobs import measured, rates
from jobs.measured import rate_key
from jobs.quote.ask import Quote, quote
from jobs.quote.earlier import newest_alike
from jobs.quote.estimate import by_pilot
from jobs.quote.show import quote_lines, quote_to_mapping
from jobs.rates import EarlierRun, RateKey
from jobs.run import prepare

KEY = RateKey(engine="e", model="m", revision="r", device="cpu-2", max_batch=8)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(measured, "_GPUS", tmp_path / "gpus")


def runs(newest_first: Sequence[float]) -> list[EarlierRun]:
    return [
        EarlierRun(rate=rate, at=NOW - timedelta(days=age), host="a")
        for age, rate in enumerate(newest_first)
    ]


@pytest.mark.parametrize(
    ("rates_", "used", "torn"),
    [
        ([], 0, False),
        ([5], 1, False),
        ([5, 6, 4, 5.5], 4, False),
        ([5, 6, 100, 5], 2, False),
        ([5, 9, 4.5], 3, False),
        ([5, 9, 4.4], 2, False),
        ([5, 11, 5], 1, True),
        ([5, 11, 5, 15], 4, False),
        ([5, 11, 5, 16], 1, True),
    ],
)
def test_the_newest_runs_that_agree_are_used(rates_: list[float], used: int, torn: bool) -> None:
    found = newest_alike(runs(rates_))
    assert found.rates == rates_[:used]
    assert found.left_out == len(rates_) - used
    assert found.torn is torn
    assert found.factor == (max(rates_) / min(rates_) if rates_ else 1)


def test_the_last_eight_runs_of_each_host_are_kept_and_this_hosts_go_first() -> None:
    for number in range(1, 11):
        rates.remember(KEY, pixel_steps=number, seconds=1, host="elsewhere")
    assert [run.rate for run in rates.earlier_runs(KEY)] == [10, 9, 8, 7, 6, 5, 4, 3]
    for number in range(20, 31):
        rates.remember(KEY, pixel_steps=number, seconds=1)
    rates.remember(KEY, pixel_steps=99, seconds=1, host="elsewhere")
    found = rates.earlier_runs(KEY)
    assert [run.rate for run in found] == [30, 29, 28, 27, 26, 25, 24, 23]
    assert {run.host for run in found} == {rates.this_host()}
    rates.remember(KEY, pixel_steps=0, seconds=1)
    assert rates.earlier_runs(KEY) == found


def test_a_damaged_memory_of_runs_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates.remember(KEY, pixel_steps=1, seconds=1)
    path = tmp_path / "cache" / "imagemill" / "runs.json"
    path.write_text(path.read_text().replace('"rate": 1.0', '"rate": -1.0'))
    with caplog.at_level(logging.WARNING):
        assert rates.earlier_runs(KEY) == []
    assert f"ignored what was measured in {path}: found" in caplog.text
    assert "expected a rate above 0 and a time with its zone" in caplog.text


def quoted_after(
    tmp_path: Path, newest_first: Sequence[float], *, remembered: bool, age: int = 0, host: str = ""
) -> Quote:
    """A quote after runs with these rates, a day apart, the newest so many days ago."""
    write_rows(tmp_path / "in" / "a.parquet", prompts(40))
    fast = ["engine=simulated", "engine.simulated_speed=200"]
    words = [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}", *fast]
    key = rate_key(prepare(words), "simulated")
    for place, rate in reversed(list(enumerate(newest_first))):
        at = NOW - timedelta(days=age + place)
        rates.remember(key, pixel_steps=rate, seconds=1, at=at, host=host)
    return quote(words, remembered=remembered)


def said(found: Quote) -> str:
    return "\n".join(quote_lines(found))


def test_runs_before_a_jump_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    found = quoted_after(tmp_path, [100, 105, 98, 900, 950], remembered=True)
    assert found.work.relative is not None
    assert found.work.relative < 0.45, "the interval of three runs that agree"
    assert (
        "earlier runs on this machine differ: the fastest was 9.69 times as fast as the slowest; "
        "only the newest 3, which agree, are used, and 2 left out" in said(found)
    )
    told = quote_to_mapping(found)["measured"]
    assert (told["earlier_runs"], told["earlier_left_out"]) == (3, 2)
    assert len(told["earlier_at"]) == 3


def test_where_even_the_newest_differ_the_pilot_alone_is_used(tmp_path: Path) -> None:
    found = quoted_after(tmp_path, [100, 900, 100, 900], remembered=False)
    assert found.pilot is not None
    assert found.work == by_pilot(found.pilot.sizes)
    assert "none is used: the interval is that of the pilot alone" in said(found)
    assert "to tell how runs differ" not in said(found)
    assert "(fewer than two were measured)" not in said(found)


def test_without_a_pilot_the_newest_alone_is_used_and_no_interval_is_told(tmp_path: Path) -> None:
    found = quoted_after(tmp_path, [100, 900], remembered=True)
    assert found.work.relative is None
    assert "the newest alone is used, so that no interval is known; leave --remembered out" in said(
        found
    )


def test_old_rates_and_those_of_another_machine_are_told(tmp_path: Path) -> None:
    found = quoted_after(tmp_path, [100, 101], remembered=True, age=80, host="tower")
    text = said(found)
    assert "by 2 earlier runs, 80 to 81 days ago, on another machine (cpu-" in text
    assert (
        "the newest of the earlier runs was 80 days ago: all that is told goes by a machine as it "
        "was then" in text
    )
    assert (
        "the earlier runs were measured on another machine (tower), whose device has the same "
        "name; none was on this one" in text
    )
    fresh = said(quoted_after(tmp_path / "b", [100, 101], remembered=True))
    assert "by 2 earlier runs, 0 to 1 days ago, on this machine (cpu-" in fresh
    assert "the newest of the earlier runs was" not in fresh
    assert "another machine" not in fresh


def test_two_runs_that_differ_by_a_fifth_give_no_absurd_interval(tmp_path: Path) -> None:
    found = quoted_after(tmp_path, [100, 120], remembered=True)
    assert found.work.relative is not None
    assert 0.1 < found.work.relative < 0.45
