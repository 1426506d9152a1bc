"""A command or a configuration key that is not documented fails here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conf.keys import known_keys
from docs.generate import PAGES
from jobs.cli import build_parser, keys_help

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_generated_page_is_up_to_date(name: str) -> None:
    found = (ROOT / "docs" / name).read_text()
    assert found == PAGES[name](), f"docs/{name} is stale: run python -m docs.generate"


def test_every_key_is_in_the_help_of_run() -> None:
    text = keys_help()
    assert [info.path for info in known_keys() if f"  {info.path}  " not in text] == []


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    usage = build_parser().format_help()
    commands = re.findall(r"^    (\w+) ", usage, flags=re.MULTILINE)
    assert len(commands) >= 10
    assert [name for name in commands if f"imagemill {name}" not in readme] == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
