"""The engines, and how one is chosen. Importing this does not import torch."""

from __future__ import annotations

import importlib
from contextlib import ExitStack

from conf.errors import ConfigError
from conf.schema import EngineConfig, ModelConfig, RunConfig
from operators.engine import Engine


def engine_of(config: RunConfig, closing: ExitStack) -> Engine:
    """The engine of a job, ready to admit requests.

    Args:
        closing: takes leave of the servers behind the engine, when it makes nothing any more.

    Raises:
        ServerLost: the job's Triton servers make no images now.
        As ``load_engine``, too.
    """
    if config.engine.name != "triton":
        return load_engine(config.engine, config.model)
    # late, as below: tritonclient is an extra
    from operators.engines.triton import load

    served = load(config.triton, config.model, priority=config.job.priority)
    closing.callback(served.close)
    return served


def load_engine(engine: EngineConfig, model: ModelConfig) -> Engine:
    """Load an engine that runs here, with its model, ready to admit requests.

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
