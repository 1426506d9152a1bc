"""Engine configurations for tests: a shipped choice with some keys changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conf.schema import EngineConfig
from jobs.configure import compose


def engine_config(choice: str, **changes: Any) -> EngineConfig:
    """``conf/engine/<choice>.yaml``, exact and uncompiled, with ``changes`` by key."""
    shipped = compose([f"engine={choice}", "input.path=none", "output.path=none"]).engine
    return replace(shipped, **({"precision": "float32", "compile": "off"} | changes))
