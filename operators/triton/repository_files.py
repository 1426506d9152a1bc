"""What a version's folder holds beside settings: a copy of the code and of the model's files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import conf
import operators
from conf.schema import ModelConfig
from operators import hub
from operators.model_files import PACKAGE_PREFIX, ModelFiles, all_files, resolve_model_path
from operators.model_source import HUB_PREFIX
from operators.triton.settings import HERE

CODE = "imagemill"
WEIGHTS = "weights"
CONFIGS = "config"
_MODEL = Path(__file__).with_name("repository_model.py")
"""It is Triton's to import, not ours."""


def copy_code(folder: Path) -> None:
    """``model.py``, and the packages that it imports, into a version's folder."""
    for package in (conf, operators):
        home = Path(package.__path__[0])
        names = [str(file.relative_to(home)) for file in home.rglob("*.py")]
        _copy(home, names, folder / CODE / home.name)
    shutil.copyfile(_MODEL, folder / "model.py")


def copy_model(files: ModelFiles, model: ModelConfig, folder: Path) -> ModelConfig:
    """Copy the model's files into a version's folder; returns the model that lies there."""
    if files.config is None:
        found = all_files(files.path)
        from_hub = model.path.startswith(HUB_PREFIX)
        names = hub.needed_files(files.path, found) if from_hub else found
        _copy(files.path, names, folder / WEIGHTS)
        return replace(model, path=f"{HERE}{WEIGHTS}", revision=None)
    _copy(files.path.parent, [files.path.name], folder / WEIGHTS)
    configs = hub.needed_configs(files.config, all_files(files.config))
    _copy(files.config, configs, folder / CONFIGS)
    return replace(model, path=f"{HERE}{WEIGHTS}/{files.path.name}", config=f"{HERE}{CONFIGS}")


def name_model(model: ModelConfig) -> ModelConfig:
    """The model where it is, by a path that means the same without the packages beside it."""
    if model.path.startswith(PACKAGE_PREFIX):
        return replace(model, path=str(resolve_model_path(model.path)))
    return model


def _copy(source: Path, names: Iterable[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
