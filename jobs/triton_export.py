"""The command ``imagemill triton export``: its words, and what was written in words."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from conf.errors import ConfigError
from conf.keys import KeyInfo, known_keys
from conf.schema import RunConfig
from conf.triton_server import GROUP, TritonServerConfig, parse_triton_server
from jobs.configure import compose
from operators.triton.repository import Exported, check_engine, export_model
from operators.triton.repository_config import Served

_OF_THE_MODEL = ("engine", "model")


def server_keys() -> list[KeyInfo]:
    """The keys that only this command takes."""
    return list(known_keys(TritonServerConfig, f"{GROUP}."))


def add_export_words(parser: argparse.ArgumentParser) -> None:
    """What may be said after ``imagemill triton export``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        ["keys, beside engine.* and model.*:", *map(_key_line, server_keys())]
    )
    parser.add_argument(
        "model", metavar="MODEL", help="as in model=MODEL: a name, folder or hub id"
    )
    parser.add_argument("repository", metavar="REPO", help="folder of the model repository")
    parser.add_argument(
        "keys",
        nargs="*",
        default=[],
        metavar="key=value",
        help="engine.*, model.* and triton.* keys",
    )


def _key_line(info: KeyInfo) -> str:
    options = f" ({'|'.join(info.choices)})" if info.choices else ""
    return f"  {info.path}  {info.help}{options}"


def export(model: str, repository: str, keys: Sequence[str]) -> list[str]:
    """Write the model; returns what to tell.

    Raises:
        ConfigError: a key is wrong or not for this command, or the repository cannot take it.
        ModelUnusable: the model is absent, incomplete or of an unsupported kind.
    """
    if "://" in repository:
        raise ConfigError(
            f"the repository is {repository}; expected a folder of this machine. Export to one, "
            "then copy it to where the server reads"
        )
    config, asked = export_config(model, keys)
    made = export_model(Path(repository), engine=asked.engine, model=asked.model, config=config)
    return _lines(made, config, repository)


def export_config(model: str, keys: Sequence[str]) -> tuple[TritonServerConfig, RunConfig]:
    """What a server is asked, and the job whose engine and model it has.

    Raises:
        ConfigError: a key is wrong or not for this command.
    """
    served, others = {}, []
    for text in keys:
        name, equals, value = text.partition("=")
        group, _, leaf = name.partition(".")
        if group == GROUP and equals:
            served[leaf] = _value(text, value)
        elif group in _OF_THE_MODEL:
            others.append(text)
            if name in ("engine", "engine.name"):
                check_engine(value)
        else:
            raise ConfigError(
                f"'{text}' is not for triton export; expected engine.*, model.* and {GROUP}.* "
                "keys: what a job asks of its rows comes with each request"
            )
    config = parse_triton_server(served)
    return config, compose([f"model={model}", "input.path=none", "output.path=none", *others])


def _value(text: str, value: str) -> object:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{text}' is not key=value: {error}") from error


def _lines(made: Exported, config: TritonServerConfig, repository: str) -> list[str]:
    served = made.served
    return [
        f"wrote {made.folder}, version {made.version}: {made.bytes / 1e6:.1f} MB, model "
        f"{served.model.name} of revision {served.revision}",
        f"engine {made.engine.name} ({made.engine.why}), {config.mode}, batches of "
        f"{served.max_batch} on {_where(served)}",
        f"serve it: tritonserver --model-repository={shlex.quote(repository)}",
    ]


def _where(served: Served) -> str:
    if served.gpus == 0:
        return "the CPU"
    if served.gpus is None:
        return "each GPU of the server"
    return "GPU 0" if served.gpus == 1 else f"each of GPUs 0 to {served.gpus - 1}"
