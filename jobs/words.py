"""Reads the words of a command line, in any order, and names near ones for those that are none."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence

_NEAR = 0.7
"""How much two words have in common of which one may be meant by the other, as difflib counts."""
_REST = ("overrides", "keys", "outputs")
"""Where commands keep words of which there may be any number."""


def parse_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """What a command line says; keys and outputs may also stand after options, where argparse does
    not look for them.

    Raises:
        SystemExit: with status 2 and usage, for a command or an option that does not exist; with
            status 0 after ``--help``.
    """
    chosen = _chosen(parser, words)
    given, rest = parser.parse_known_args(words)
    taken = next((name for name in _REST if hasattr(given, name)), None)
    unknown = [word for word in rest if word.startswith("-") or taken is None]
    if unknown:
        options = chosen._option_string_actions
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}{_near(unknown[0], options)}")
    if taken is not None:
        setattr(given, taken, [*getattr(given, taken), *rest])
    return given


def _chosen(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command, or of a command below it, that the first words name."""
    for word in words:
        commands = _commands(parser)
        if not commands or word.startswith("-"):
            break
        if word not in commands:
            parser.error(_no_command(parser, word, commands))
        parser = commands[word]
    return parser


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The commands below a parser by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _no_command(parser: argparse.ArgumentParser, word: str, commands: Iterable[str]) -> str:
    if parser.prog.endswith(" prices"):  # the likeliest is that a book was meant
        book = shlex.quote(word)
        return (
            f"imagemill prices shows the book that --book names: imagemill prices --book {book}; "
            "to make one of a catalogue: imagemill prices import CATALOGUE.csv BOOK.yaml"
        )
    near = _near(word, commands)
    return f"there is no command '{word}'{near or '; see ' + repr(parser.prog + ' --help')}"


def _near(word: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence; "" where nothing is near."""
    found = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=_NEAR)
    return f"; did you mean {found[0]}?" if found else ""
