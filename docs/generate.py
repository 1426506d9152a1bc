"""Writes docs/configuration.md and docs/commands.md from the schema and the parser.

Run as ``python -m docs.generate``; a test fails when the files are not what this writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from conf.schema import MISSING, known_keys
from jobs.cli import build_parser
from jobs.configure import GROUPS, choices, compose_mapping

HERE = Path(__file__).parent


def configuration() -> str:
    """docs/configuration.md"""
    defaults = compose_mapping([])
    lines = [
        "# Configuration",
        "",
        "Every key is given as `key=value` on the command line. `imagemill run --cfg …` prints the",
        "composed configuration. An unknown key is refused and the nearest known ones are named.",
        "This page is written by `python -m docs.generate`.",
        "",
        "## Choices",
        "",
        "| choice | values | default |",
        "|---|---|---|",
    ]
    chosen = {"model": "shapes", "engine": "stepwise", "pricing": "local"}
    for group in GROUPS:
        names = ", ".join(f"`{name}`" for name in choices(group))
        lines.append(f"| `{group}=` | {names} | `{chosen[group]}` |")
    lines += [
        "",
        "`model=/path/to/folder` is short for `model=custom model.path=/path/to/folder`, or for",
        "the choice that has the defaults of the folder's family ([models](models.md)). A choice",
        "sets the keys of its group, which can be given one by one as well.",
    ]
    group = ""
    for info in known_keys():
        head = info.path.split(".", 1)[0]
        if head != group:
            group = head
            lines += [
                "",
                f"## {group}",
                "",
                "| key | what it is | type | default |",
                "|---|---|---|---|",
            ]
        kind = " \\| ".join(f"`{choice}`" for choice in info.choices) or info.type_name
        lines.append(f"| `{info.path}` | {info.help} | {kind} | {_default(defaults, info.path)} |")
    return "\n".join(lines) + "\n"


def _default(defaults: dict[str, object], path: str) -> str:
    value: object = defaults
    for part in path.split("."):
        assert isinstance(value, dict)
        value = value[part]
    if value == MISSING:
        return "must be given"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value not in ("", {}) else "empty"


def commands() -> str:
    """docs/commands.md"""
    parser = build_parser()
    lines = [
        "# Commands",
        "",
        "This page is written by `python -m docs.generate` from `--help`.",
        "",
        "Exit status: 0 success (of a job: all rows committed, or quarantined within",
        "`job.max_quarantined`); 1 finished with too many quarantined rows or a left-out file,",
        "or `verify` found problems; 2 wrong usage, configuration or input, nothing started;",
        "3 stopped before the end, resumable.",
    ]
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for name, one in actions[0].choices.items():
        one.epilog = None
        one.formatter_class = _Formatter
        lines += ["", f"## imagemill {name}", "", "```", one.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


class _Formatter(argparse.HelpFormatter):
    """Of the same width everywhere."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


PAGES = {"configuration.md": configuration, "commands.md": commands}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make())


if __name__ == "__main__":
    main()
