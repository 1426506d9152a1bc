"""The command ``imagemill cost``: its words, and where the answer goes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from conf.errors import ConfigError
from conf.schema import RunConfig
from jobs.cost.ask import cost_of
from jobs.cost.dimensions import DIMENSIONS, Dimension, dimensions
from jobs.cost.focus import DETAILS, export_focus, focus_lines
from jobs.cost.outputs import Output, Standing, find_outputs
from jobs.cost.page import cost_page
from jobs.cost.show import FORMATS, answer_lines, notes

T = TypeVar("T")
_STORAGE = "storage."
_KEY = re.compile(rf"(?:{'|'.join(item.name for item in fields(RunConfig))})(?:\.\w+)*=")
"""How a configuration key with its value begins."""
_INCOMPLETE = 1
"""Exit status: written, but lines without a price are not in it."""


def add_words(parser: argparse.ArgumentParser) -> None:
    """What may be said after ``imagemill cost``."""
    parser.add_argument(
        "outputs",
        nargs="+",
        metavar="OUTPUT",
        help="outputs, or folders above some; storage.key=value says how to reach them",
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="NAME[,NAME…]",
        help=f"one row for each of: {', '.join(DIMENSIONS)}, tag:NAME; several make combinations",
    )
    parser.add_argument(
        "--format", choices=["table", *FORMATS], default="table", help="of the answer"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--spread",
        action="store_true",
        help="charge waiting, loading, waste and storage to the images, by their device time",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a page with charts that needs no network; without --by it groups by project",
    )
    parser.add_argument(
        "--focus",
        type=Path,
        metavar="FILE",
        help="write the charges as FOCUS 1.2 with the split columns of 1.3: .parquet or .csv",
    )
    parser.add_argument(
        "--focus-detail",
        choices=DETAILS,
        default=DETAILS[0],
        help="a row for each charge (job, day, node, kind, tags, price), or for each image",
    )


def answer(given: argparse.Namespace) -> int:
    """Ask, and show or write; returns the exit status.

    Raises:
        ConfigError: words that do not go together, or a file that cannot be written.
    """
    overrides = [word for word in given.outputs if _KEY.match(word)]
    named = [word for word in given.outputs if word not in overrides]
    refused = next((word for word in overrides if not word.startswith(_STORAGE)), None)
    if refused is not None:
        raise ConfigError(
            f"'{refused}' is not for imagemill cost, which reads what is on the ledger; expected "
            f"outputs, and {_STORAGE}* keys to reach them"
        )
    if not named:
        raise ConfigError("imagemill cost needs an OUTPUT: the output.path of a job, or a folder")
    if given.focus is not None:
        if given.by or given.out or given.spread or given.html or given.format != "table":
            raise ConfigError(
                "--focus writes all charges and goes with none of --by, --spread, --html, --format "
                "and --out; run imagemill cost twice"
            )
        found = find_outputs(named, overrides)
        done = _written(given.focus, lambda: export_focus(found, given.focus, given.focus_detail))
        print("\n".join([*focus_lines(done), *Standing.of(found).lines()]))
        return _INCOMPLETE if done.unpriced_lines else 0
    if given.format == "parquet" and given.out is None:
        raise ConfigError(
            "--format parquet is not for a terminal; say where to: --out costs.parquet"
        )
    by = dimensions(given.by)
    if given.html is not None:
        return _page(given, find_outputs(named, overrides), by)
    told = cost_of(find_outputs(named, overrides), by, spread_others=given.spread)
    if given.format == "table":
        data = ("\n".join(answer_lines(told)) + "\n").encode()
    else:
        data = FORMATS[given.format](told)
        for line in notes(told):
            print(f"imagemill: {line}", file=sys.stderr)
    if given.out is None:
        print(data.decode(), end="")
    else:
        _written(given.out, lambda: given.out.write_bytes(data))
        print(f"wrote {given.out}")
    return 0


def _page(given: argparse.Namespace, found: Sequence[Output], by: Sequence[Dimension]) -> int:
    if given.out or given.format != "table":
        raise ConfigError(
            "--html writes a page and goes with neither --format nor --out; run imagemill cost "
            "twice"
        )
    path: Path = given.html
    _written(path, lambda: path.write_bytes(cost_page(found, by, spread_others=given.spread)))
    print(f"wrote {path}: open it in a browser")
    return 0


def _written(path: Path, write: Callable[[], T]) -> T:
    """Run ``write``, which writes ``path``; what hinders it is the command's fault."""
    if "://" in str(path) or ":/" in str(path):
        raise ConfigError(f"{path} is a URL; expected a file on this machine, to copy from there")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {folder}; make it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"cannot write {path}: it is a folder, or may not be written")
    try:
        return write()
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
