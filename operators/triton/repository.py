"""Writes a model into a Triton model repository.

::

    REPO/NAME/config.pbtxt          what Triton is told
    REPO/NAME/warmup/               the inputs of the warm-up request
    REPO/NAME/1/model.py            what Triton calls
    REPO/NAME/1/settings.json       what the engine is told
    REPO/NAME/1/imagemill/          a copy of the code: the packages conf and operators
    REPO/NAME/1/weights/, config/   a copy of the model's files, unless they are only named

A further export of the same name makes the next version. It gets its number when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from conf.errors import ConfigError
from conf.schema import EngineConfig, ModelConfig
from conf.triton_server import TritonServerConfig, check_name
from operators.engine_choice import EngineChoice, choose_engine
from operators.model_files import ModelFiles
from operators.model_source import find_model, pin_model
from operators.triton.repository_config import Served, config_text, warm_up_files
from operators.triton.repository_files import copy_code, copy_model, name_model
from operators.triton.settings import ServerSettings, write_settings
from operators.triton_signature import VERSION_PARAMETER

CONFIG = "config.pbtxt"
WARM_UP = "warmup"
ON_CPU, ON_GPU = 8, 16
"""Rows of a batch where ``engine.max_batch`` says none: Triton must be told a number."""
_SIMULATED = "simulated"
_SERVED = ("auto", "stepwise", "pipeline", _SIMULATED)
"""The engines that a server can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written: ``bytes`` is the size of the new ``version`` in ``folder``, REPO/NAME."""

    folder: Path
    version: int
    bytes: int
    served: Served
    engine: EngineChoice


def export_model(
    repository: Path, *, engine: EngineConfig, model: ModelConfig, config: TritonServerConfig
) -> Exported:
    """Write a version of the model into ``repository``, a local folder.

    Raises:
        ModelUnusable: the model is absent, incomplete or of an unsupported kind.
        ConfigError: a key does not go with this model, or the folder cannot take it.
    """
    folder = repository / check_name(config.model or model.name)
    model = pin_model(model)
    files, choice = _find(engine, model)
    gpus = 0 if config.gpus is None and not model.needs_gpu else config.gpus
    max_batch = engine.max_batch or (ON_CPU if gpus == 0 else ON_GPU)
    served = Served(
        name=folder.name,
        model=model,
        revision=files.revision if files else _SIMULATED,
        max_batch=max_batch,
        gpus=gpus,
    )
    settings = ServerSettings(
        held=max_batch * (1 + config.ahead_batches),
        revision=served.revision,
        engine=replace(engine, name=choice.name, max_batch=max_batch),
        model=model,
    )
    try:
        _refuse_others(folder)
        version = _write_version(folder, settings, files if config.copy_weights else None)
        for name, content in warm_up_files(served).items():
            _replace(folder / WARM_UP / name, content)
        _replace(folder / CONFIG, config_text(served, config).encode())
    except OSError as error:
        raise ConfigError(
            f"the model cannot be written to {folder}: {error}; give a folder of this machine that "
            "can be written and has room"
        ) from error
    written = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    return Exported(
        folder=folder, version=int(version.name), bytes=written, served=served, engine=choice
    )


def check_engine(name: str) -> None:
    """Check that a server can run an engine.

    Raises:
        ConfigError: it cannot.
    """
    if name not in _SERVED:
        raise ConfigError(
            f"engine.name is {name}; a server runs {', '.join(_SERVED)}. Export with engine=auto"
        )


def _find(engine: EngineConfig, model: ModelConfig) -> tuple[ModelFiles | None, EngineChoice]:
    """The model's files and the engine that makes its images; the simulated one needs none."""
    check_engine(engine.name)
    if engine.name == _SIMULATED:
        return None, EngineChoice(name=_SIMULATED, why="asked for")
    files = find_model(model)
    return files, choose_engine(engine.name, files, model.sampler)


def _refuse_others(folder: Path) -> None:
    config = folder / CONFIG
    if config.exists() and VERSION_PARAMETER not in config.read_text():
        raise ConfigError(
            f"{folder} holds a model that ImageMill did not write; export under another name with "
            "triton.model=…, or to another repository"
        )


def _write_version(folder: Path, settings: ServerSettings, files: ModelFiles | None) -> Path:
    """The next version's folder; ``files`` are copied into it."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".draft-{secrets.token_hex(4)}"
    draft.mkdir()
    try:
        copy_code(draft)
        model = settings.model
        model = copy_model(files, model, draft) if files else name_model(model)
        write_settings(draft, replace(settings, model=model))
        numbers = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
        version = folder / str(max(numbers, default=0) + 1)
        os.rename(draft, version)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return version


def _replace(file: Path, content: bytes) -> None:
    """Write a file of which nobody ever sees a part."""
    file.parent.mkdir(exist_ok=True)
    draft = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    draft.write_bytes(content)
    os.replace(draft, file)
