"""Remembered numbers: kept by key, and never in the way."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from operators.remembered import RememberedNumbers


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imagemill"


def test_a_newer_number_replaces_the_older_one_and_keeps_the_others(cache: Path) -> None:
    numbers = RememberedNumbers("speeds")
    numbers.keep(1.5, "model", 64)
    numbers.keep(2.0, "other", 64)
    numbers.keep(2.5, "model", 64)
    again = RememberedNumbers("speeds")
    assert (again.get("model", 64), again.get("other", 64)) == (2.5, 2.0)
    assert again.get("model", 128) is None
    assert RememberedNumbers("sizes").get("model", 64) is None
    assert again.path == cache / "speeds.json"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"schema": 99}),
        json.dumps({"schema": 2}),
        json.dumps({"schema": 2, "numbers": []}),
        json.dumps({"schema": 2, "numbers": {"x": "fast"}}),
        json.dumps({"schema": 2, "numbers": {"x": None}}),
        json.dumps({"schema": 2, "numbers": {"x": 0}}),
    ],
)
def test_a_corrupt_file_is_ignored_with_a_warning_and_replaced(
    cache: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    numbers = RememberedNumbers("speeds")
    numbers.path.parent.mkdir(parents=True)
    numbers.path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert numbers.get("x") is None
    assert f"ignored what was measured in {numbers.path}" in caplog.text
    numbers.keep(3.0, "x")
    assert numbers.get("x") == 3.0


def test_only_the_newest_numbers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.remembered._MOST", 3)
    numbers = RememberedNumbers("speeds")
    for key in ("a", "b", "c", "a", "d"):
        numbers.keep(1.0, key)
    assert [numbers.get(key) for key in "abcd"] == [1.0, None, 1.0, 1.0]


def test_a_number_that_cannot_be_kept_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    RememberedNumbers("speeds").keep(1.0, "x")
    assert "cannot keep what was measured" in caplog.text


def test_they_lie_in_the_home_cache_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RememberedNumbers("x").path == tmp_path / ".cache" / "imagemill" / "x.json"
