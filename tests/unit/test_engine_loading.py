"""Loading engines by their names: what they say of themselves, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping

import pytest

from conf.errors import ConfigError, ModelUnusable
from conf.schema import ModelConfig
from operators.engine import Engine
from operators.engines import load_engine
from operators.engines.simulated import step_seconds
from operators.request import Request
from tests.engine_config import engine_config
from tests.tiny_model import SIZE, build_tiny_stable_diffusion
from tests.tiny_others import build_tiny_latent_diffusion

CONFIG = engine_config("simulated", max_batch=3, simulated_seconds={1: 1e-5, 4: 2e-5})
MODEL = ModelConfig(
    name="tiny",
    path="nowhere",
    revision=None,
    config=None,
    width=SIZE,
    height=SIZE,
    steps=5,
    guidance_scale=4.0,
    sampler="ddim",
    needs_gpu=False,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ModelConfig]:
    """A model with an adapter for the stepwise engine, and one without."""
    folder = tmp_path_factory.mktemp("tiny")
    paths = {
        "stepwise": build_tiny_stable_diffusion(folder / "sd"),
        "pipeline": build_tiny_latent_diffusion(folder / "ldm"),
    }
    return {name: dataclasses.replace(MODEL, path=str(path)) for name, path in paths.items()}


def made(engine: Engine, *, steps: int, guidance_scale: float, size: int = SIZE) -> int:
    """How many images come of one request."""
    request = Request(
        image_id="0",
        row_id=0,
        image_index=0,
        prompt="a fox",
        negative_prompt="",
        seed=0,
        width=size,
        height=size,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler="ddim",
    )
    engine.admit([request])
    outcomes = 0
    while engine.busy:
        outcomes += len(engine.tick())
    return outcomes


def test_engines_say_whether_they_simulate(models: Mapping[str, ModelConfig]) -> None:
    simulated = load_engine(CONFIG, MODEL).info
    assert (simulated.simulated, simulated.name) == (True, "simulated")
    assert (simulated.model, simulated.model_revision) == ("simulated:tiny", "simulated")
    for name in ("stepwise", "pipeline"):
        real = load_engine(dataclasses.replace(CONFIG, name=name), models[name]).info
        assert (real.simulated, real.name, real.model) == (False, name, "tiny")
        assert real.max_batch == simulated.max_batch == 3


@pytest.mark.parametrize("name", ["stepwise", "pipeline"])
def test_real_engines_need_a_model(name: str) -> None:
    with pytest.raises(ModelUnusable, match="nowhere"):
        load_engine(dataclasses.replace(CONFIG, name=name), MODEL)


def test_the_stepwise_engine_refuses_a_model_without_adapter(
    models: Mapping[str, ModelConfig],
) -> None:
    with pytest.raises(ModelUnusable, match=r"is a LDMTextToImagePipeline.*Use engine=auto or"):
        load_engine(dataclasses.replace(CONFIG, name="stepwise"), models["pipeline"])


def test_an_engine_must_be_chosen_before_it_is_loaded(models: Mapping[str, ModelConfig]) -> None:
    with pytest.raises(ConfigError, match=r"engine\.name is auto; expected the name of an engine"):
        load_engine(dataclasses.replace(CONFIG, name="auto"), models["stepwise"])


def test_the_simulated_engine_needs_times_unless_it_does_not_wait() -> None:
    empty = dataclasses.replace(CONFIG, simulated_seconds={})
    with pytest.raises(ConfigError, match="simulated_seconds is empty"):
        load_engine(empty, MODEL)
    engine = load_engine(dataclasses.replace(empty, simulated_speed=0.0), MODEL)
    assert made(engine, steps=1000, guidance_scale=4.0) == 1


def test_the_simulated_engine_waits_as_long_as_its_table_says() -> None:
    measured = {2: 1.0, 4: 3.0}
    assert [step_seconds(measured, n) for n in (1, 2, 3, 4, 8)] == [1.0, 1.0, 2.0, 3.0, 6.0]
    slow = dataclasses.replace(CONFIG, simulated_seconds={1: 0.004})
    engine = load_engine(slow, MODEL)
    assert made(engine, steps=5, guidance_scale=1.0, size=64) == 1
    assert engine.stats.busy_ns >= 5 * 4_000_000


def test_choosing_and_simulating_needs_no_torch() -> None:
    script = (
        "import sys; from operators.engines import load_engine; "
        "import operators.engines.simulated, operators.model_source, operators.request; "
        "import operators.engine_choice; "
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
