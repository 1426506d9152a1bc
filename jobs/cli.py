"""The command line: parses words, calls the verbs of ``jobs``, prints, and sets the exit status."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from cluster.job_log import (
    JobRecord,
)
from cluster.store import Store
from conf.errors import (
    ConfigError,
    CorruptOutput,
    ImageMillError,
    InputError,
    StoreDenied,
    StoreFull,
    StoreRefused,
)
from conf.keys import known_keys
from jobs import run as verbs
from jobs.cancellation import cancel, take_back
from jobs.configure import GROUPS, choices, compose_mapping, to_yaml
from jobs.cost.command import add_words, answer
from jobs.dry_run import REFUSED, dry_run_lines
from jobs.execute import JobResult, version
from jobs.figures import plural
from jobs.gc import collect, collected_lines
from jobs.models import model_lines
from jobs.open_job import look_at_job
from jobs.prices import book_lines
from jobs.prices_import import Import, import_catalogue
from jobs.quote.command import add_quote_words, tell
from jobs.run_keys import CHANGEABLE, RUN_KEYS
from jobs.status import status, status_lines
from jobs.submit import add_logs_words, add_submit_words, tell_logs, tell_submitted
from jobs.summary import summary_lines
from jobs.triton_export import add_export_words, export
from jobs.verify import report_lines, verify
from jobs.words import parse_words

log = logging.getLogger("imagemill")
WRONG_USE = 2
STOPPED = 3

_STORE_KEYS_HELP = "storage.* keys only, which say how to reach the output"

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = parse_words(parser, words)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    log.setLevel(logging.DEBUG if given.verbose else logging.INFO)
    command: Command = given.command
    try:
        return command(given)
    except (ConfigError, InputError) as error:
        return _refuse(error, given.verbose, WRONG_USE)
    except CorruptOutput as error:
        return _refuse(error, given.verbose, 1)
    except StoreFull as error:
        full = StoreFull(f"{error}; free some space, then go on with 'imagemill resume OUTPUT'")
        return _refuse(full, given.verbose, STOPPED)
    except ImageMillError as error:
        return _refuse(error, given.verbose, STOPPED)
    except KeyboardInterrupt as interrupt:
        what = str(interrupt) or "what is committed counts; 'imagemill status OUTPUT' tells how far"
        print(f"imagemill: interrupted; {what}", file=sys.stderr)
        return STOPPED


def _refuse(error: ImageMillError, verbose: bool, status_code: int) -> int:
    if verbose:
        log.exception("the command failed")
    print(f"imagemill: {error}", file=sys.stderr)
    return status_code


def build_parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    parser = argparse.ArgumentParser(
        prog="imagemill",
        description="A table of prompts becomes a dataset of images, each exactly once and with "
        "its cost.",
    )
    parser.add_argument("--version", action="version", version=f"imagemill {version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text, command in (
        ("run", "start a job and work on it until it ends", _run),
        ("plan", "show what a job would do; writes nothing", _plan),
    ):
        one = _command(commands, name, help_text, command)
        one.formatter_class = argparse.RawDescriptionHelpFormatter
        one.epilog = keys_help()
        one.add_argument(
            "overrides", nargs="*", default=[], metavar="key=value", help="see the keys below"
        )
        one.add_argument("--cfg", action="store_true", help="print the composed configuration")
        if name == "run":
            one.add_argument(
                "--dry-run", action="store_true", help="show what would be done; write nothing"
            )
            one.add_argument(
                "--resume",
                action="store_true",
                help="go on with the job where output.path holds it already",
            )
    quote = _command(
        commands, "quote", "tell time and cost of a job before it; writes nothing", tell
    )
    quote.formatter_class = argparse.RawDescriptionHelpFormatter
    quote.epilog = keys_help()
    add_quote_words(quote)
    for name, help_text, command in (
        ("resume", "go on with a job that was stopped", _resume),
        ("retry", "work on the quarantined rows of a finished job again", _retry),
    ):
        _on_output(commands, name, help_text, command)
    submit = _command(
        commands,
        "submit",
        "send a run to a Ray cluster, where it goes on by itself",
        tell_submitted,
    )
    add_submit_words(submit)
    add_logs_words(
        _command(commands, "logs", "print what a submitted run said, from its cluster", tell_logs)
    )
    look = "show how far a job is, from its output alone"
    _on_output(commands, "status", look, _status, _STORE_KEYS_HELP)
    stop = "ask a running job to commit what is done and stop"
    _on_output(commands, "cancel", stop, _cancel, _STORE_KEYS_HELP).add_argument(
        "--undo",
        action="store_true",
        help="take it back, so that 'imagemill run --resume' goes on with the job again",
    )
    check = "account for every row and re-read every sha256"
    _on_output(commands, "verify", check, _verify, _STORE_KEYS_HELP)
    draw = "write report, contact sheet and README anew"
    _on_output(commands, "report", draw, _report, _STORE_KEYS_HELP)
    add_words(_command(commands, "cost", "tell what outputs cost, by whatever you ask", answer))
    collect_help = "show, or with --delete remove, what no commit counts"
    gc = _on_output(commands, "gc", collect_help, _gc, _STORE_KEYS_HELP)
    gc.add_argument("--delete", action="store_true", help="remove it; without this only say what")
    _command(commands, "models", "list the models that model=NAME may name", _models)
    prices = _command(commands, "prices", "show a price book, or import one", _prices)
    prices.usage = "imagemill prices [-h] [-v] [--book BOOK]\n       imagemill prices import …"
    prices.add_argument("--book", default="local", help="a name in conf/pricing or a YAML file")
    _prices_import(prices.add_subparsers(metavar="import", prog="imagemill prices"))
    triton = _command(commands, "triton", "serve a model by Triton Inference Server", _triton)
    parts = triton.add_subparsers(metavar="export", required=True)
    add_export_words(
        _command(parts, "export", "write a model into a Triton model repository", _triton)
    )
    return parser


def _prices_import(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    one = _command(commands, "import", "make a price book of a SkyPilot catalogue", _import)
    one.add_argument("catalogue", metavar="CATALOGUE.csv", type=Path)
    one.add_argument("book", metavar="BOOK.yaml", type=Path, help="the file to write")
    one.add_argument("--provider", required=True, help="who bills, such as aws")
    one.add_argument("--version", required=True, help="name of this state of the prices")
    one.add_argument("--currency", default="USD", help="ISO 4217 code; default USD")
    one.add_argument("--region", action="append", default=[], help="only this one; may repeat")
    one.add_argument("--accelerator", action="append", default=[], help="only this one; may repeat")


def keys_help() -> str:
    """All configuration keys with their meaning, for ``--help`` and the docs."""
    lines = ["configuration keys (defaults in conf/, all described in docs/configuration.md):"]
    lines += [f"  {group}={'|'.join(choices(group))}" for group in GROUPS]
    for info in known_keys():
        options = f" ({'|'.join(info.choices)})" if info.choices else ""
        lines.append(f"  {info.path}  {info.help}{options}")
    lines += [
        "",
        "exit status: 0 all rows committed or quarantined within job.max_quarantined; 1 finished, "
        "too many",
        "quarantined; 2 wrong usage or configuration, nothing started; 3 stopped before the end, "
        "resumable",
    ]
    return "\n".join(lines)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    command: Command,
) -> argparse.ArgumentParser:
    one = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
    )
    one.add_argument("-v", "--verbose", action="store_true", help="say more, with tracebacks")
    one.set_defaults(command=command)
    return one


def _on_output(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    command: Command,
    keys_help: str = "cluster.*, storage.*, pricing.*, budget.* and triton.* keys only",
) -> argparse.ArgumentParser:
    one = _command(commands, name, help_text, command)
    one.add_argument("output", metavar="OUTPUT", help="the output.path of a job: a folder or URL")
    one.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=keys_help)
    return one


def _open(given: argparse.Namespace, command: str) -> tuple[JobRecord, Store]:
    """The job of a command that begins no run, and takes ``storage.*`` keys alone.

    Raises:
        ConfigError: a key that would change nothing.
    """
    _refuse_keys(given, command)
    return look_at_job(given.output, given.overrides)


def _refuse_keys(given: argparse.Namespace, command: str) -> None:
    """What a run costs and may cost is refused by whoever looks at the job, which knows more."""
    for text in given.overrides:
        if "=" not in text:
            raise ConfigError(
                f"'{text}' is no key=value; 'imagemill {command}' takes one OUTPUT, then "
                "storage.* keys"
            )
        if not text.startswith(("storage.", *RUN_KEYS)):
            other = ", or give it to imagemill resume" if text.startswith(CHANGEABLE) else ""
            raise ConfigError(
                f"'{text}' changes nothing that 'imagemill {command}' tells or does; it takes "
                f"storage.* keys; leave it out{other}"
            )


def _print(lines: Sequence[str]) -> None:
    print("\n".join(lines))


def _run(given: argparse.Namespace) -> int:
    if given.cfg:
        print(to_yaml(compose_mapping(given.overrides)), end="")
        return 0
    if given.dry_run:
        return _plan(given)
    begin = verbs.run_or_resume if given.resume else verbs.run
    return _ended(begin(given.overrides, Console(stderr=True)))


def _plan(given: argparse.Namespace) -> int:
    if given.cfg:
        print(to_yaml(compose_mapping(given.overrides)), end="")
        return 0
    lines = dry_run_lines(given.overrides)
    _print(lines)
    return WRONG_USE if any(line.startswith(REFUSED) for line in lines) else 0


def _resume(given: argparse.Namespace) -> int:
    return _ended(verbs.resume(given.output, given.overrides, Console(stderr=True)))


def _retry(given: argparse.Namespace) -> int:
    return _ended(verbs.retry(given.output, given.overrides, Console(stderr=True)))


def _ended(result: JobResult) -> int:
    _print(summary_lines(result.job, result.finish, result.status))
    return result.status


def _status(given: argparse.Namespace) -> int:
    _, store = _open(given, "status")
    _print(status_lines(status(store)))
    return 0


def _cancel(given: argparse.Namespace) -> int:
    _, store = _open(given, "cancel")
    print((take_back if given.undo else cancel)(store, given.output))
    return 0


def _verify(given: argparse.Namespace) -> int:
    _, store = _open(given, "verify")
    verification = verify(store)
    _print(report_lines(verification))
    return 0 if verification.ok else 1


def _report(given: argparse.Namespace) -> int:
    _refuse_keys(given, "report")
    written = verbs.report(given.output, given.overrides)
    if not written:
        print(
            "imagemill: nothing was written; mend what the warning says, then run this again",
            file=sys.stderr,
        )
        return STOPPED
    _print([f"wrote {path}" for path in written])
    return 0


def _gc(given: argparse.Namespace) -> int:
    _, store = _open(given, "gc")
    try:
        collected = collect(store, dry_run=not given.delete)
    except StoreRefused as error:
        if not given.delete:
            raise
        raise StoreDenied(
            f"{error}; some may be removed already, all that counts is there; go on with: "
            f"imagemill gc {shlex.quote(given.output)} --delete"
        ) from error
    _print(collected_lines(collected, given.output))
    return 0


def _models(given: argparse.Namespace) -> int:
    _print(model_lines())
    return 0


def _prices(given: argparse.Namespace) -> int:
    _print(book_lines(given.book))
    return 0


def _triton(given: argparse.Namespace) -> int:
    _print(export(given.model, given.repository, given.keys))
    return 0


def _import(given: argparse.Namespace) -> int:
    asked = Import(
        provider=given.provider,
        version=given.version,
        currency=given.currency,
        regions=given.region,
        accelerators=given.accelerator,
    )
    done = import_catalogue(given.catalogue, given.book, asked)
    print(
        f"wrote {given.book}: {plural(len(done.book.instances), 'price')}; use them with "
        f"pricing={given.book}, look at them with: imagemill prices --book "
        f"{shlex.quote(str(given.book))}"
    )
    if done.repeated:
        print(f"the catalogue has {plural(done.repeated, 'price')} twice; each was taken once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
