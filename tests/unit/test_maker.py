"""What makes a job's images is settled before anything starts, and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from input_tables import prompts, write_rows

from conf.errors import ConfigError, OptionRefused
from jobs.configure import compose
from jobs.dry_run import dry_run_lines
from jobs.maker import revision_now, settle
from jobs.measured import rate_key
from jobs.models import model_lines
from jobs.run import prepare
from operators.row_defaults import row_defaults
from tests.tiny_flux import build_tiny_flux
from tests.tiny_model import build_tiny_stable_diffusion
from tests.tiny_others import build_tiny_latent_diffusion

PATHS = ("input.path=in.parquet", "output.path=out")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_latent_diffusion(tmp_path_factory.mktemp("other") / "ldm")


def test_auto_is_the_default_and_names_an_engine_before_the_job_begins() -> None:
    config = prepare(PATHS)
    assert config.engine.name == "auto"
    maker = settle(config)
    assert maker.config.engine.name == "stepwise"
    assert maker.engine_line == (
        "stepwise: StableDiffusionPipeline has an adapter and sampler ddim is linear"
    )
    assert maker.model_revision == revision_now(maker.config)
    assert settle(maker.config).config == maker.config


def test_an_engine_that_was_chosen_and_one_that_was_asked_for_are_the_same_job(
    other: Path,
) -> None:
    chosen = settle(prepare(PATHS)).config
    assert settle(prepare([*PATHS, "engine=stepwise"])).config.digest() == chosen.digest()
    assert settle(prepare([*PATHS, "engine=pipeline"])).config.digest() != chosen.digest()


def test_the_measured_rate_belongs_to_the_engine_that_was_chosen() -> None:
    chosen, asked = (settle(prepare([*PATHS, *one])).config for one in ([], ["engine=stepwise"]))
    assert rate_key(chosen, "r") == rate_key(asked, "r")
    assert rate_key(chosen, "r").engine.startswith("stepwise-")


def test_another_pipeline_gets_its_own_scheduler_and_the_pipeline_engine(other: Path) -> None:
    config = prepare([*PATHS, f"model={other}"])
    assert (config.model.sampler, row_defaults(config).sampler) == ("default", "default")
    assert settle(config).engine_line == (
        "pipeline: LDMTextToImagePipeline has no adapter for the stepwise engine"
    )


def test_what_the_pipeline_cannot_do_is_refused_where_the_configuration_asks_it(
    other: Path,
) -> None:
    config = prepare([*PATHS, f"model={other}", "sampling.negative_prompt=ugly"])
    with pytest.raises(ConfigError, match="LDMTextToImagePipeline takes no negative prompt"):
        settle(config)


def test_compiling_is_refused_where_the_pipeline_engine_runs(other: Path) -> None:
    asked = [f"model={other}", "engine.compile=full"]
    expected = (
        r"engine\.compile=full is for the stepwise engine, but the pipeline engine runs \(.+\); it "
        r"compiles nothing\. Give engine\.compile=off"
    )
    with pytest.raises(ConfigError, match=expected):
        settle(prepare([*PATHS, *asked]))


def test_the_models_own_sampler_decides_too(tmp_path: Path) -> None:
    folder = build_tiny_stable_diffusion(tmp_path / "sd")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "thresholding": True}))
    clipped, euler = (
        settle(prepare([*PATHS, f"model={folder}", f"sampling.sampler={sampler}"]))
        for sampler in ("ddim", "euler")
    )
    assert (clipped.config.engine.name, euler.config.engine.name) == ("pipeline", "stepwise")
    assert "thresholding=True" in clipped.why


def test_a_dry_run_names_the_engine_and_why(tmp_path: Path, other: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(2))
    lines = dry_run_lines(
        [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}", f"model={other}"]
    )
    assert "engine    pipeline: LDMTextToImagePipeline has no adapter for the stepwise engine" in (
        lines
    )


def test_the_list_of_models_names_the_engine_of_each() -> None:
    (shapes,) = [line for line in model_lines() if line.startswith("shapes ")]
    assert "engine stepwise (StableDiffusionPipeline has an adapter" in shapes


@pytest.mark.parametrize(
    ("given", "name", "path"),
    [
        ("owner/some-model", "some-model", "hf://owner/some-model"),
        ("hf://owner/some-model", "some-model", "hf://owner/some-model"),
        ("/models/a.v1.safetensors", "a.v1", "/models/a.v1.safetensors"),
        ("/models/folder", "folder", "/models/folder"),
    ],
)
def test_a_model_may_be_a_folder_a_file_or_a_hub_id(
    monkeypatch: pytest.MonkeyPatch, given: str, name: str, path: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = prepare([*PATHS, f"model={given}"])
    assert (config.model.name, config.model.path) == (name, path)
    assert (config.model.width, config.model.sampler) == (512, "dpmpp_2m")


def test_an_unknown_model_says_what_a_model_may_be() -> None:
    with pytest.raises(ConfigError, match=r"model=nonsense does not exist.*model=owner/name"):
        compose([*PATHS, "model=nonsense"])


def test_an_attention_backend_is_refused_where_the_model_takes_none(tmp_path: Path) -> None:
    for engine in ("stepwise", "pipeline"):
        asked = [*PATHS, "engine.attention=flash", f"engine={engine}"]
        with pytest.raises(
            OptionRefused, match=r"engine\.attention=flash: the UNet2DConditionModel"
        ):
            settle(prepare(asked))
    flux = build_tiny_flux(tmp_path / "flux")
    settle(prepare([*PATHS, f"model={flux}", "engine.attention=flash"]))
