"""The engines, and how one is chosen. Importing this does not import torch."""

from __future__ import annotations

import importlib

from conf.errors import ConfigError
from conf.schema import EngineConfig, ModelConfig
from operators.engine import Engine


def load_engine(engine: EngineConfig, model: ModelConfig) -> Engine:
    """Load the engine that the configuration names, with its model, ready to admit requests.

    Raises:
        ModelUnusable: the model is absent, incomplete or of an unsupported kind.
        ConfigError: the simulated engine has no calibrated times to wait for, or the choice of an
            engine was left open.
    """
    if engine.name == "auto":
        raise ConfigError(
            "engine.name is auto; expected the name of an engine: choose_engine makes the choice, "
            "once for a job"
        )
    # imported by name and late, so that a machine without torch can simulate
    module = importlib.import_module(f"operators.engines.{engine.name}")
    loaded: Engine = module.load(engine, model)
    return loaded
