"""The copies of models in a repository are the models that were exported."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from jobs.triton_export import export
from operators import hub
from operators.model_files import all_files, describe_folder
from operators.model_source import find_model
from operators.triton.repository_files import copy_model
from operators.triton.settings import read_settings
from tests.stepwise_rows import load_model
from tests.tiny_checkpoint import write_checkpoint
from tests.tiny_model import build_tiny_stable_diffusion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "sd")


def test_a_checkpoint_is_copied_with_its_configs(folder: Path, tmp_path: Path) -> None:
    file = write_checkpoint(folder, tmp_path / "tiny.safetensors")
    configs = tmp_path / "configs"
    shutil.copytree(folder, configs)
    export(str(file), str(tmp_path / "repo"), [f"model.config={configs}"])
    version = tmp_path / "repo" / "tiny" / "1"
    settings = read_settings(version)
    assert settings.model.path == str(version / "weights" / "tiny.safetensors")
    assert settings.model.config == str(version / "config")
    assert not list((version / "config").rglob("*.safetensors"))
    assert find_model(settings.model).revision == settings.revision


def test_of_a_hub_model_only_what_counts_is_copied(folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    shutil.copytree(folder, cached)
    (cached / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half of it")
    files = describe_folder(cached, files=hub.needed_files(cached, all_files(cached)))
    asked = dataclasses.replace(load_model("hf://tiny/sd"), revision="c" * 40)
    placed = copy_model(files, asked, tmp_path / "1")
    assert (placed.path, placed.revision) == ("./weights", None)
    assert not list((tmp_path / "1").rglob("*.fp16.*"))
    found = describe_folder(tmp_path / "1" / "weights")
    assert found.revision == files.revision
