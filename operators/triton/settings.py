"""What an exported model is told, beside its code: ``settings.json`` in its version's folder.

Written by the export, read by the server. Knows nothing of Triton's own configuration.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from conf.errors import ConfigError
from conf.parser import parse_group
from conf.schema import EngineConfig, ModelConfig

SCHEMA = 1
SETTINGS = "settings.json"
HERE = "./"
"""What a path begins with that lies in the version's own folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """``held``: how many requests one instance takes at a time; the others wait in Triton's queue,
    where priorities and time limits hold. ``model.path`` and ``model.config`` may begin with
    ``HERE``. ``revision`` is that of the model's files."""

    held: int
    revision: str
    engine: EngineConfig
    model: ModelConfig


def write_settings(folder: Path, settings: ServerSettings) -> None:
    """Write the file into ``folder``."""
    plain = {"schema": SCHEMA, **dataclasses.asdict(settings)}
    (folder / SETTINGS).write_text(json.dumps(plain, indent=2) + "\n")


def read_settings(folder: Path) -> ServerSettings:
    """The settings of a version's folder, its own paths made absolute.

    Raises:
        ConfigError: the file is not what the export writes.
    """
    file = folder / SETTINGS
    try:
        plain = json.loads(file.read_text())
        schema = plain["schema"]
        if schema != SCHEMA:
            raise ConfigError(
                f"{file} has schema {schema}; expected {SCHEMA}. Export the model again with the "
                "ImageMill that serves it"
            )
        model = parse_group(ModelConfig, plain["model"], "model")
        return ServerSettings(
            held=int(plain["held"]),
            revision=str(plain["revision"]),
            engine=parse_group(EngineConfig, plain["engine"], "engine"),
            model=dataclasses.replace(
                model,
                path=_absolute(folder, model.path),
                config=None if model.config is None else _absolute(folder, model.config),
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} is not what 'imagemill triton export' writes ({type(error).__name__}: "
            f"{error}); export the model again"
        ) from error


def _absolute(folder: Path, path: str) -> str:
    return str(folder / path.removeprefix(HERE)) if path.startswith(HERE) else path
