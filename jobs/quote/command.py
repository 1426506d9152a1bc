"""The command ``imagemill quote``: its words, and how the answer is told."""

from __future__ import annotations

import argparse
import json

from jobs.quote.ask import PILOT_SECONDS, quote
from jobs.quote.show import quote_lines, quote_to_mapping


def add_quote_words(parser: argparse.ArgumentParser) -> None:
    """What may be said after ``imagemill quote``."""
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="those of imagemill run"
    )
    parser.add_argument(
        "--remembered",
        action="store_true",
        help="try no row; take the rates that earlier runs on this machine had",
    )
    parser.add_argument(
        "--pilot-seconds",
        type=float,
        default=PILOT_SECONDS,
        metavar="S",
        help=f"about how long rows may be tried, after loading (default {PILOT_SECONDS:g})",
    )
    parser.add_argument("--json", action="store_true", help="answer as JSON, with every offer")


def tell(given: argparse.Namespace) -> int:
    """Ask for the quote and print it; returns the exit status.

    Raises:
        ConfigError, InputError: see ``jobs.quote.quote``.
    """
    found = quote(given.overrides, remembered=given.remembered, pilot_seconds=given.pilot_seconds)
    if given.json:
        print(json.dumps(quote_to_mapping(found), indent=2, ensure_ascii=False))
    else:
        print("\n".join(quote_lines(found)))
    return 0
