"""Which engine makes the images of a model, and why.

Told from files alone, before anything is loaded. Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf.errors import ConfigError
from operators.families import FAMILIES, REFUSED_UNET_OPTIONS, no_adapter
from operators.model_files import ModelFiles
from operators.nonlinear_options import nonlinear_option
from operators.sampler_names import OWN_SAMPLER

_CORRECTED: Mapping[str, Mapping[str, Any]] = {"StableDiffusionPipeline": {"clip_sample": False}}
"""What a pipeline sets in its scheduler's configuration, whatever the model's file says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine's name, and the reason in words."""

    name: str
    why: str


def choose_engine(asked: str, files: ModelFiles, sampler: str) -> EngineChoice:
    """The engine that ``engine.name`` means for a model whose rows use ``sampler`` by default.

    Raises:
        ModelUnusable: the stepwise engine was asked for, and it has no adapter for this model.
        ConfigError: it was asked for, and cannot do what the model or the sampler needs.
    """
    if asked == "stepwise" and files.pipeline_class not in FAMILIES:
        raise no_adapter(files)
    if asked not in ("auto", "stepwise"):
        return EngineChoice(name=asked, why="asked for")
    against = _against_stepwise(files, sampler)
    if asked == "stepwise":
        if against is not None:
            raise ConfigError(
                f"engine=stepwise: {against}; give engine=pipeline or another sampling.sampler"
            )
        return EngineChoice(name=asked, why="asked for")
    if against is not None:
        return EngineChoice(name="pipeline", why=against)
    return EngineChoice(
        name="stepwise",
        why=f"{files.pipeline_class} has an adapter and {_named(sampler)} is linear",
    )


def _against_stepwise(files: ModelFiles, sampler: str) -> str | None:
    if files.pipeline_class not in FAMILIES:
        return f"{files.pipeline_class} has no adapter for the stepwise engine"
    unet = files.settings("unet")
    for option in REFUSED_UNET_OPTIONS.get(files.pipeline_class, ()):
        if unet.get(option) is not None:
            return f"the UNet has {option}={unet[option]}, which the stepwise engine does not give"
    scheduler = {**files.settings("scheduler"), **_CORRECTED.get(files.pipeline_class, {})}
    clipping = nonlinear_option(scheduler, sampler)
    if clipping is not None:
        return f"the model's scheduler has {clipping}, with which {_named(sampler)} is not linear"
    return None


def _named(sampler: str) -> str:
    return "its own scheduler" if sampler == OWN_SAMPLER else f"sampler {sampler}"
