"""Single-file checkpoints: the pictures of the folder they came from, or what is missing."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from huggingface_hub import constants

from conf.errors import ConfigError, ModelUnusable
from operators.engines import load_engine
from operators.model_source import find_model, peek_class, pin_model
from tests.hub_server import running_hub
from tests.stepwise_rows import ask, difference, engine_config, load, load_model, run
from tests.tiny_checkpoint import write_checkpoint
from tests.tiny_model import build_tiny_stable_diffusion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return write_checkpoint(folder, folder.parent / "tiny.safetensors")


@pytest.fixture
def configs(folder, tmp_path):
    """What model.config may be: the folder without any weights."""
    bare = tmp_path / "configs"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    return bare


def model(path, config=None):
    config = None if config is None else str(config)
    return dataclasses.replace(load_model(path), config=config)


@pytest.mark.parametrize("engine", ["stepwise", "pipeline"])
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_checkpoint_makes_the_pictures_of_its_folder(folder, configs, tmp_path, engine, ending):
    file = write_checkpoint(folder, tmp_path / f"tiny.{ending}")
    rows = [ask(0), ask(1, sampler="unipc", guidance_scale=1.0)]
    expected = run(load(folder, engine=engine), rows)
    made = run(load_engine(engine_config(engine), model(file, configs)), rows)
    for number, outcome in made.items():
        assert difference(outcome.pixels, expected[number].pixels) == 0


def test_the_revision_follows_weights_and_configs(checkpoint, configs, tmp_path):
    found = find_model(model(checkpoint, configs))
    assert (found.path, found.config) == (checkpoint, configs)
    assert found.pipeline_class == "StableDiffusionPipeline"
    assert found.bytes > checkpoint.stat().st_size
    (configs / "notes.md").write_text("not read")
    (configs / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not read")
    assert find_model(model(checkpoint, configs)).revision == found.revision
    (configs / "scheduler" / "scheduler_config.json").write_text("{}")
    changed = find_model(model(checkpoint, configs)).revision
    other = tmp_path / checkpoint.name
    other.write_bytes(checkpoint.read_bytes() + b" ")
    assert len({found.revision, changed, find_model(model(other, configs)).revision}) == 3


def refusal(one):
    with pytest.raises(ModelUnusable) as caught:
        find_model(pin_model(one))
    return str(caught.value)


def test_without_configs_it_is_said_what_they_are_and_where_from(checkpoint):
    message = refusal(model(checkpoint))
    assert f"{checkpoint} holds weights only: model.config is not set" in message
    assert "model.config=/path" in message
    assert "stabilityai/stable-diffusion-xl-base-1.0 for XL" in message


def test_an_absent_checkpoint_and_absent_configs_are_named(checkpoint, configs, tmp_path):
    absent = tmp_path / "gone.ckpt"
    assert f"checkpoint {absent} does not exist: expected a file" in refusal(model(absent, configs))
    assert "expected a folder in the diffusers format or a hub id, found nothing" in refusal(
        model(checkpoint, tmp_path / "a" / "b" / "c")
    )
    (configs / "tokenizer").rename(configs / "elsewhere")
    assert "no files in 'tokenizer'" in refusal(model(checkpoint, configs))


def test_configs_go_with_checkpoints_alone(folder, configs):
    with pytest.raises(ConfigError, match=r"model\.config is .*, no checkpoint file"):
        pin_model(model(folder, configs))


def test_a_file_that_is_no_checkpoint_is_refused_when_it_is_loaded(configs, tmp_path):
    file = tmp_path / "page.safetensors"
    file.write_text("<html>404</html>")
    with pytest.raises(ModelUnusable, match=r"diffusers cannot load the model in .*page\.safet"):
        load_engine(engine_config("stepwise"), model(file, configs))


def test_a_pipeline_that_reads_no_single_files_is_refused(checkpoint, configs):
    index = (configs / "model_index.json").read_text()
    (configs / "model_index.json").write_text(
        index.replace("StableDiffusionPipeline", "LDMTextToImagePipeline")
    )
    with pytest.raises(ModelUnusable, match="LDMTextToImagePipeline cannot be read from a single"):
        load_engine(engine_config("pipeline"), model(checkpoint, configs))


def test_its_class_is_that_of_its_configs(checkpoint, configs):
    assert peek_class(str(checkpoint)) is None
    assert peek_class(str(checkpoint), config=str(configs)) == "StableDiffusionPipeline"


def test_configs_may_come_from_the_hub_pinned_and_without_weights(
    checkpoint, folder, monkeypatch, tmp_path
):
    with running_hub() as hub:
        files = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        commit = hub.push("tiny/sd", folder, branch="v1")
        pinned = pin_model(model(checkpoint, "tiny/sd@v1"))
        assert (pinned.revision, pinned.config) == (None, f"hf://tiny/sd@{commit}")
        assert find_model(pinned).revision == find_model(model(checkpoint, folder)).revision
        assert not any("safetensors" in asked for asked in hub.asked)
