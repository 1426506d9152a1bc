"""Where a model comes from: a folder, a single-file checkpoint with its configs, or the hub.

The driver pins what is asked (``pin_model``), so that every worker finds the same (``find_model``).
Reads files only; knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from conf.errors import ConfigError, ModelUnusable
from conf.schema import ModelConfig
from operators import hub
from operators.model_files import (
    PACKAGE_PREFIX,
    ModelFiles,
    all_files,
    check_component,
    components_of,
    describe_folder,
    describe_model,
    digest,
    peek_pipeline_class,
    pipeline_class_of,
    read_index,
    resolve_model_path,
)

HUB_PREFIX = "hf://"
"""How a hub id is written in a job's record, where it can be mistaken for no folder."""
CHECKPOINT_ENDINGS = (".safetensors", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONFIG_IDS = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5 for Stable Diffusion 1, "
    "stabilityai/stable-diffusion-xl-base-1.0 for XL"
)


def is_checkpoint(path: str) -> bool:
    """Whether ``path`` names a single-file checkpoint."""
    return path.endswith(CHECKPOINT_ENDINGS)


def plain_source(path: str) -> str:
    """``path`` so that it means the same everywhere: absolute, or with its prefix."""
    if path.startswith((PACKAGE_PREFIX, HUB_PREFIX)):
        return path
    repo, _, revision = path.partition("@")
    if _HUB_ID.fullmatch(repo) and not is_checkpoint(path) and not Path(path).exists():
        return f"{HUB_PREFIX}{repo}@{revision}" if revision else f"{HUB_PREFIX}{repo}"
    return os.path.abspath(os.path.expanduser(path))


def pin_model(model: ModelConfig) -> ModelConfig:
    """The same model with its hub revisions named by commit.

    Raises:
        ConfigError: a key that does not go with this kind of model.
        ModelUnusable: the hub does not know it or cannot be reached.
    """
    source = plain_source(model.path)
    revision, config = model.revision, model.config
    if source.startswith(HUB_PREFIX):
        revision = hub.resolve_commit(_hub_id(source), revision)
    elif revision is not None:
        raise ConfigError(
            f"model.revision is {revision}, but model.path is {source}, no hub id (owner/name); "
            "a local model is named by its files. Remove model.revision"
        )
    if config is not None:
        if not is_checkpoint(source):
            raise ConfigError(
                f"model.config is {config}, but model.path is {source}, no checkpoint file "
                f"({' or '.join(CHECKPOINT_ENDINGS)}): a folder has its own. Remove model.config"
            )
        config = plain_source(config)
        if config.startswith(HUB_PREFIX):
            repo, _, asked = config.removeprefix(HUB_PREFIX).partition("@")
            config = f"{HUB_PREFIX}{repo}@{hub.resolve_commit(repo, asked or None)}"
    return replace(model, path=source, revision=revision, config=config)


def find_model(model: ModelConfig) -> ModelFiles:
    """Check the model's files, fetch them from the hub if they are there, and name the revision.

    Raises:
        ModelUnusable: something is absent or incomplete, or the pipeline needs more than a text.
    """
    source = plain_source(model.path)
    if source.startswith(HUB_PREFIX):
        folder = hub.fetch(_hub_id(source), model.revision)
        return describe_folder(folder, files=hub.needed_files(folder, all_files(folder)))
    if is_checkpoint(source):
        return _describe_checkpoint(resolve_model_path(source), model.config)
    return describe_model(source)


def peek_class(path: str, *, revision: str | None = None, config: str | None = None) -> str | None:
    """The pipeline class of a model; None where ``find_model`` would say why not."""
    source = plain_source(path)
    try:
        if is_checkpoint(source):
            return peek_class(config) if config else None
        if source.startswith(HUB_PREFIX):
            repo, _, asked = source.removeprefix(HUB_PREFIX).partition("@")
            return peek_pipeline_class(str(hub.peek_index(repo, revision or asked or None)))
        return peek_pipeline_class(source)
    except ModelUnusable:
        return None


def _hub_id(source: str) -> str:
    repo = source.removeprefix(HUB_PREFIX)
    if not _HUB_ID.fullmatch(repo):
        raise ModelUnusable(
            f"model.path is {source}; expected hf://owner/name. Give a branch, tag or commit as "
            "model.revision; download a single file of a repository first"
        )
    return repo


def _describe_checkpoint(file: Path, config: str | None) -> ModelFiles:
    if not file.is_file():
        found = "a folder" if file.exists() else "nothing"
        raise ModelUnusable(
            f"checkpoint {file} does not exist: expected a file, found {found}. Set model.path to "
            "a downloaded checkpoint"
        )
    folder = _config_folder(file, config)
    index = read_index(folder)
    components = components_of(index)
    for component in components:
        check_component(folder, component, index.get(component), weights=False)
    configs, configs_bytes = digest(folder, hub.needed_configs(folder, all_files(folder)))
    own, own_bytes = digest(file.parent, [file.name])
    return ModelFiles(
        path=file,
        revision=hashlib.sha256(f"{own} {configs}".encode()).hexdigest()[:16],
        pipeline_class=pipeline_class_of(folder, index),
        bytes=own_bytes + configs_bytes,
        components=components,
        config=folder,
    )


def _config_folder(file: Path, config: str | None) -> Path:
    if config is None:
        raise ModelUnusable(
            f"{file} holds weights only: model.config is not set. Give the folder of a diffusers "
            "model of the same kind, model.config=/path (model_index.json, scheduler, tokenizers "
            "and the config.json of each part; no weights), or a hub id, from which these small "
            f"files are fetched: {_CONFIG_IDS}"
        )
    source = plain_source(config)
    if source.startswith(HUB_PREFIX):
        repo, _, commit = source.removeprefix(HUB_PREFIX).partition("@")
        return hub.fetch(repo, commit or None, weights=False)
    folder = resolve_model_path(source)
    if not folder.is_dir():
        raise ModelUnusable(
            f"model.config is {config}; expected a folder in the diffusers format or a hub id, "
            f"found {'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    return folder
