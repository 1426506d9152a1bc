"""What an exported Triton model is asked: the keys of ``imagemill triton export``, no job's.

A job that uses such a model has keys of its own; none of these is part of a job's configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conf.errors import ConfigError, UnknownKey
from conf.parser import parse_group

GROUP = "triton"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _key(
    default: Any, help_text: str, *, choices: tuple[str, ...] = (), low: float | None = None
) -> Any:
    """A key: its default, its help text and what values it may take."""
    return field(default=default, metadata={"help": help_text, "choices": choices, "low": low})


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonServerConfig:
    """How a model is served."""

    mode: str = _key(
        "dynamic",
        "dynamic: a batch that Triton formed is made to its end; continuous: new requests enter "
        "the running batch at its next step, and clients ask by streams",
        choices=("dynamic", "continuous"),
    )
    model: str | None = _key(None, "name of the model on the server; null: model.name")
    gpus: int | None = _key(
        None,
        "GPUs of the server that get an instance each, 0: the CPU gets one; null: all GPUs where "
        "model.needs_gpu, else the CPU",
        low=0,
    )
    delay_ms: float = _key(
        50, "dynamic: how long a request that fills no batch waits for others", low=0
    )
    ahead_batches: int = _key(
        2,
        "continuous: batches of requests that an instance holds beside the running one, to sort "
        "them by image size; what it holds no priority overtakes",
        low=0,
    )
    priority_levels: int = _key(3, "levels of priority; 1 goes first", low=1)
    max_queue: int = _key(
        256, "requests that may wait at each level of priority; more are refused", low=1
    )
    queue_timeout_s: float | None = _key(
        None,
        "how long a request may wait, unless it names a shorter time; null: as long as it takes",
        low=0,
    )
    timeout_action: str = _key(
        "reject",
        "what becomes of a request that waited for too long; delay: it goes behind the others",
        choices=("reject", "delay"),
    )
    copy_weights: bool = _key(
        True, "copy the model's files into the repository; false: name where they are"
    )


def parse_triton_server(given: Mapping[str, Any]) -> TritonServerConfig:
    """Check the keys that were given, by name without their group; the others have their defaults.

    Raises:
        UnknownKey: a key that does not exist.
        ConfigError: a wrong value, with the key, what was expected and what was found.
    """
    fields = dataclasses.fields(TritonServerConfig)
    known = {item.name: item.default for item in fields}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {GROUP}.{near[0]}?"
                if near
                else f"its keys are {', '.join(f'{GROUP}.{one}' for one in known)}"
            )
            raise UnknownKey(f"triton export has no key '{GROUP}.{name}'; {hint}")
    config = parse_group(TritonServerConfig, known | dict(given), GROUP)
    if config.model is not None:
        check_name(config.model)
    return config


def check_name(name: str) -> str:
    """The name if it can be a model's on a server, where it is a folder and part of URLs.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of a model on a server; expected letters, digits, '.', "
            f"'_' and '-'. Give another with {GROUP}.model=…"
        )
    return name
