"""Who is told of a budget: a URL to POST to, or a command. Maybe a secret: no error shows it."""

from __future__ import annotations

import shlex
import shutil
from urllib.parse import urlsplit

from conf.errors import ConfigError


def is_url(target: str) -> bool:
    """Whether it is posted to; else it is a command."""
    return target.lower().startswith(("http://", "https://"))


def check_alert(target: str) -> None:
    """Refuse what could never be told.

    Raises:
        ConfigError: what is wrong with it, without its value.
    """
    _refuse(_url_problem(target) if is_url(target) else _command_problem(target))


def check_command(target: str) -> None:
    """Refuse a command that this machine, on which the run's driver is, does not have.

    Raises:
        ConfigError: it has none, without its value.
    """
    if not is_url(target) and shutil.which(shlex.split(target)[0]) is None:
        _refuse("is a command that this machine does not have, or may not execute")


def _refuse(problem: str) -> None:
    if problem:
        raise ConfigError(
            f"budget.alert {problem}; expected http(s)://host/path or a command with its "
            "arguments (the value is not shown, for it may be a secret)"
        )


def _url_problem(url: str) -> str:
    if not url.isascii() or not url.isprintable() or " " in url:
        return "is a URL with spaces or characters that a URL cannot hold; percent-encode them"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is a URL whose host or port is none"
    if "@" in parts.netloc:
        return "is a URL with a user before its host, which is not sent; leave it out"
    return "" if parts.hostname else "is a URL without a host"


def _command_problem(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return "is a command with a quote that is not closed"
    if not words or not words[0]:
        return "is empty"
    if "://" in words[0]:
        return "is a URL that nothing can be posted to"
    return "" if "\0" not in command else "is a command with a zero byte"
