"""Sending a run to a Ray cluster, where it goes on without whoever sent it."""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.ray_jobs import ENDED, RayJobs
from conf.errors import ConfigError
from conf.schema import RunConfig
from jobs.deadline import refuse_passed
from jobs.rayjob import render
from jobs.run import prepare
from jobs.sendable import (
    refuse_credentials,
    refuse_relative,
    refuse_relative_path,
    refuse_secrets,
)

_NAME_CHARACTERS = 40
_TO = "the cluster's job server: its head's dashboard, such as http://head:8265"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A command line for the cluster, under a name of its own. ``output``: where the job writes."""

    name: str
    entrypoint: str
    output: str
    project: str


def submission(overrides: Sequence[str]) -> Submission:
    """The run that ``imagemill run`` would start here, for a cluster to start.

    Raises:
        ConfigError: the configuration is wrong, or means something else on another machine.
    """
    config = _checked(overrides)
    address = [] if _given(overrides, "cluster.address") else ["cluster.address=auto"]
    return Submission(
        name=_name(config.job.name or "job"),
        entrypoint=shlex.join(["imagemill", "run", *overrides, *address]),
        output=config.output.path,
        project=config.job.project,
    )


def rendered(overrides: Sequence[str], pattern: str) -> str:
    """A RayJob for the run that ``imagemill run`` would start here.

    Args:
        pattern: a YAML file with a RayJob that it is to be like; - is the standard input.

    Raises:
        ConfigError: see ``submission`` and ``jobs.rayjob.render``.
    """
    config = _checked(overrides)
    where = "the standard input" if pattern == "-" else pattern
    try:
        text = sys.stdin.read() if pattern == "-" else Path(pattern).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read --render {where}: {why}") from error
    return render(
        text,
        where,
        job_name=config.job.name or "job",
        output=config.output.path,
        overrides=overrides,
    )


def continuation(output: str, overrides: Sequence[str]) -> Submission:
    """``imagemill resume`` for a cluster to start.

    Raises:
        ConfigError: the output is a relative path, or it or a key holds what may be a secret.
    """
    refuse_relative_path("OUTPUT", output)
    refuse_credentials("OUTPUT", output)
    refuse_secrets(overrides)
    address = [] if _given(overrides, "cluster.address") else ["cluster.address=auto"]
    return Submission(
        name=_name(output.rstrip("/").rsplit("/", 1)[-1]),
        entrypoint=shlex.join(["imagemill", "resume", output, *overrides, *address]),
        output=output,
        project="",
    )


def send(sent: Submission, to: str) -> list[str]:
    """Hand a submission over; returns the lines that say how to follow it.

    Raises:
        ConfigError: nobody answers at ``to``, or the job was refused.
    """
    labels = {"imagemill_output": sent.output, "imagemill_project": sent.project}
    RayJobs(to).submit(sent.entrypoint, name=sent.name, labels=labels)
    where = shlex.quote(sent.output)
    lines = [
        f"submitted  {sent.name} to {to}",
        f"runs       {sent.entrypoint}",
        f"logs       imagemill logs {sent.name} --to {to}",
        f"status     imagemill status {where}",
        f"stop       imagemill cancel {where}",
    ]
    if "://" not in sent.output:
        lines.append(
            "note       the output is a folder of the cluster's head: status and cancel work there"
        )
    return lines


def follow(name: str, to: str, *, to_the_end: bool) -> int:
    """Print what a job said, or says until it ends; returns 0 unless it failed.

    Raises:
        ConfigError: there is no such job.
        JobServerLost: the server does not answer any more.
        KeyboardInterrupt: nobody wants to hear more; the job goes on.
    """
    jobs = RayJobs(to)
    if to_the_end and jobs.status(name) not in ENDED:
        try:
            asyncio.run(_print_tail(jobs, name))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{name} goes on; follow it with: imagemill logs {name} --to {to} --follow"
            ) from None
    else:
        print(jobs.logs(name), end="")
    status = jobs.status(name)
    if status in ENDED:
        print(f"{name}: {status.lower()}")
    return int(status in ("FAILED", "STOPPED"))


async def _print_tail(jobs: RayJobs, name: str) -> None:
    async for lines in jobs.tail(name):
        print(lines, end="", flush=True)


def _name(text: str) -> str:
    """A name for Ray: letters, digits, dashes; different every time, since a job may be resumed."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:_NAME_CHARACTERS] or "job"
    return f"imagemill-{plain}-{secrets.token_hex(3)}"


def _given(overrides: Sequence[str], key: str) -> bool:
    return any(one.partition("=")[0] == key for one in overrides)


def _checked(overrides: Sequence[str]) -> RunConfig:
    """The configuration, as far as it can be checked here: a price book may be on the cluster."""
    refuse_relative(overrides)
    refuse_secrets(overrides)
    elsewhere = ("pricing=/", "pricing.book=/")
    return refuse_passed(prepare([one for one in overrides if not one.startswith(elsewhere)]))


def add_submit_words(parser: argparse.ArgumentParser) -> None:
    """The words of ``imagemill submit``."""
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="as for 'imagemill run'"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", metavar="URL", help=_TO)
    where.add_argument(
        "--render",
        metavar="RAYJOB.yaml",
        help="send nothing; print a RayJob like the one of this file (-: standard input) for it",
    )
    parser.add_argument(
        "--resume", metavar="OUTPUT", help="go on with a job that was stopped instead"
    )
    parser.add_argument("--follow", action="store_true", help="print its log until it ends")


def tell_submitted(given: argparse.Namespace) -> int:
    """Answer ``imagemill submit``; returns the exit status."""
    if given.render:
        if given.resume or given.follow:
            raise ConfigError(
                "--render sends nothing that could be followed, and its RayJob goes on with a job "
                "that is there by itself; give it the job's own keys, without --resume and --follow"
            )
        print(rendered(given.overrides, given.render), end="")
        return 0
    try:
        sent = (
            continuation(given.resume, given.overrides)
            if given.resume
            else submission(given.overrides)
        )
    except ConfigError as error:
        raise type(error)(f"{error}; nothing was sent") from error
    for line in send(sent, given.to):
        print(line)
    return follow(sent.name, given.to, to_the_end=True) if given.follow else 0


def add_logs_words(parser: argparse.ArgumentParser) -> None:
    """The words of ``imagemill logs``."""
    parser.add_argument("name", metavar="NAME", help="what 'imagemill submit' called the job")
    parser.add_argument("--to", required=True, metavar="URL", help=_TO)
    parser.add_argument("--follow", action="store_true", help="go on until the job ends")


def tell_logs(given: argparse.Namespace) -> int:
    """Answer ``imagemill logs``; returns the exit status."""
    return follow(given.name, given.to, to_the_end=given.follow)
