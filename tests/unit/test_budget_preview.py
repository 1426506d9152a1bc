"""A dry run tells of budgets what a run would, and reserves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from input_tables import prompts, write_rows

from jobs.cli import main

Plan = Callable[..., tuple[int, str]]
PRICE = ("pricing.price_per_hour=3600", "job.commit_seconds=8", "cluster.heartbeat_s=1")


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Plan:
    """Runs ``imagemill plan``: exit status and output. One worker needs 10 USD to leave."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_rows(tmp_path / "in" / "a.parquet", prompts(4))
    words = [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}"]
    words += ["engine=simulated", "cluster.workers=1", "job.project=shop", *PRICE]

    def run(*more: str) -> tuple[int, str]:
        return main(["plan", *words, *more]), capsys.readouterr().out

    return run


def test_without_a_cap_nothing_is_told(plan: Plan) -> None:
    status, text = plan()
    assert (status, "budget" in text, "project  " in text) == (0, False, False)


def test_caps_are_told_with_what_is_left_of_the_projects(plan: Plan, tmp_path: Path) -> None:
    place = f"budget.store={tmp_path / 'budgets'}"
    caps = ("budget.max_cost=40", "budget.max_hours=2", "budget.project_max_cost=100")
    status, text = plan(place, *caps)
    assert status == 0, text
    assert "budget    budget.max_cost=40 USD and budget.max_hours=2 for the job\n" in text
    assert "project   shop: 0 of 100 USD spent; nothing reserved; 100 USD left\n" in text
    assert not list((tmp_path / "budgets").glob("*/*/*")), "nothing is reserved"


def test_a_place_for_budgets_that_cannot_be_used_is_told_by_its_key(
    plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    for place, says in (
        (
            tmp_path / "file" / "budgets",
            f"{tmp_path / 'file'} is no folder; choose another",
        ),
        ("foo://bucket/budgets", "budget.store is of no use: cannot use 'foo://bucket/budgets'"),
    ):
        status, text = plan(f"budget.store={place}", "budget.project_max_cost=100")
        assert status == 2
        (refused,) = [line for line in text.splitlines() if line.startswith("refused ")]
        assert "a run would be refused: budget.store " in refused
        assert says in refused


def test_what_is_left_is_told_beside_why_a_run_would_be_refused(plan: Plan, tmp_path: Path) -> None:
    _, text = plan(f"budget.store={tmp_path / 'budgets'}", "budget.project_max_cost=9")
    assert "project   shop: 0 of 9 USD spent; nothing reserved; 9 USD left\nrefused   " in text


def test_a_folder_below_a_file_is_no_output(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    status, text = plan()
    assert status == 2
    assert f"{tmp_path / 'out'} is no folder; choose another output.path\n" in text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("budget.max_cost=9", "budget.max_cost=9 USD is too small: 10 USD are kept for 1 worker"),
        ("budget.project_max_cost=9", "budget.project_max_cost=9 USD is too small: 10 USD are"),
        ("budget.alert=no-such-command", "budget.alert is a command that this machine does not"),
    ],
)
def test_a_budget_that_a_run_would_refuse_is_told(
    plan: Plan, given: str, says: str, tmp_path: Path
) -> None:
    status, text = plan(f"budget.store={tmp_path / 'budgets'}", given)
    assert status == 2
    assert f"refused   a run would be refused: {says}" in text
