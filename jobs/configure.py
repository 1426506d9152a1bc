"""The only place that knows Hydra: overrides in, a checked ``RunConfig`` out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import ConfigError
from conf.keys import known_keys, unknown_key
from conf.parser import parse_config
from conf.schema import RunConfig
from operators.model_source import is_checkpoint, peek_class

GROUPS = ("model", "engine", "pricing")
"""``pricing=NAME`` is short for ``pricing.book=NAME``."""
FAMILY_DEFAULTS = {
    "StableDiffusionPipeline": "custom",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "PixArtSigmaPipeline": "pixart",
}
"""Which choice of ``model`` has the defaults of a model's pipeline class; else ``other``."""
_OPEN = ("job.tags.", "storage.options.", "triton.headers.")
"""Groups in which the user invents the keys."""


def choices(group: str) -> list[str]:
    """The names that ``group=NAME`` may choose."""
    folder = files("conf") / group
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir())


def compose(overrides: Sequence[str]) -> RunConfig:
    """Compose conf/ with ``key=value`` overrides and check it.

    Raises:
        ConfigError: an override or a value is wrong; the message names the key.
    """
    return parse_config(compose_mapping(overrides))


def compose_mapping(overrides: Sequence[str]) -> dict[str, Any]:
    """The composed configuration as plain values, not yet checked against the schema."""
    prepared = [prepared for text in overrides for prepared in _prepare(text, overrides)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("conf", version_base=None):
            composed = hydra_compose("config", overrides=prepared)
        plain = OmegaConf.to_container(composed, resolve=True)
    except OverrideParseException as error:
        raise ConfigError(
            f"cannot read '{error.override}': {str(error).splitlines()[0]}; expected key=value "
            "with each bracket, brace and quote closed"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot compose the configuration: {error}") from error
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def to_yaml(mapping: dict[str, Any]) -> str:
    """The composed configuration for people."""
    text: str = OmegaConf.to_yaml(OmegaConf.create(mapping))
    return text


def _prepare(text: str, overrides: Sequence[str]) -> list[str]:
    """One override in Hydra's grammar, its key checked, its text value quoted."""
    name, equals, value = text.lstrip("+").partition("=")
    if not equals or not name:
        raise ConfigError(f"'{text}' is not an override; expected key=value, e.g. job.name=cats")
    if name == "model" and value not in choices("model"):
        return _prepare_model(value, dict(one.partition("=")[::2] for one in overrides))
    if name in GROUPS:
        return _prepare_group(name, value)
    if f"{name}." in _OPEN:
        raise ConfigError(f"{name} is no key itself; expected {name}.NAME=VALUE")
    if name.startswith(_OPEN):
        return [f"++{name}={_quoted(value)}"]
    kinds = {info.path: info.type_name for info in known_keys()}
    if name not in kinds:
        raise unknown_key(name)
    if kinds[name].startswith("text") and not (value == "null" and "null" in kinds[name]):
        return [f"{name}={_quoted(value)}"]
    return [f"{name}={value}"]


def _prepare_group(group: str, value: str) -> list[str]:
    if group == "pricing":
        return [f"pricing.book={_quoted(value)}"]
    known = choices(group)
    if value in known:
        return [f"{group}={value}"]
    raise ConfigError(f"{group}={value} does not exist; expected one of {', '.join(known)}")


def _prepare_model(value: str, given: Mapping[str, str]) -> list[str]:
    """A folder, a checkpoint or a hub id, with the defaults of its family where that is known."""
    if not ("/" in value or is_checkpoint(value) or Path(value).expanduser().is_dir()):
        raise ConfigError(
            f"model={value} does not exist; expected one of {', '.join(choices('model'))}; or give "
            "a diffusers folder, a checkpoint file or a hub id: model=/path/to/folder, "
            "model=/path/to/file.safetensors, model=owner/name"
        )
    revision, config = (_asked(given, f"model.{key}") for key in ("revision", "config"))
    found = peek_class(value, revision=revision, config=config)
    family = FAMILY_DEFAULTS.get(found, "other") if found else "custom"
    name = Path(value).stem if is_checkpoint(value) else Path(value).name
    return [
        f"model={family}",
        f"model.path={_quoted(value)}",
        f"model.name={_quoted(name or 'custom')}",
    ]


def _asked(given: Mapping[str, str], name: str) -> str | None:
    value = given.get(name, "null")
    return None if value == "null" else value.strip("'\"")


def _quoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    # Hydra un-escapes backslashes only before a quote; ${ would be an interpolation.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + (m[2] and "\\'"), value)
    return "'" + escaped.replace("${", "\\${") + "'"


def absolute(path: str) -> str:
    """A local path made absolute, so that workers elsewhere mean the same; URLs stay."""
    if "://" in path or path.startswith("package:"):
        return path
    return os.path.abspath(os.path.expanduser(path))
