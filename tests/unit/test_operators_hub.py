"""Models by hub id: one commit for all, only the files that are needed, and clear words offline.

The hub is a server on loopback that gives the answers that huggingface_hub asks for.
"""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from huggingface_hub import constants

from conf.errors import ConfigError, ModelUnusable
from operators.model_files import describe_model
from operators.model_source import find_model, peek_class, pin_model
from tests.hub_server import running_hub
from tests.stepwise_rows import ask, difference, load, load_model, run
from tests.tiny_model import build_tiny_stable_diffusion
from tests.tiny_others import build_tiny_latent_diffusion

REPO = "tiny/sd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as one:
        # what HF_ENDPOINT and HF_HOME set before huggingface_hub is imported
        files = one.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", one.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield one


def model(path=REPO, **keys):
    return dataclasses.replace(load_model("nowhere"), path=path, **keys)


def test_a_hub_id_is_pinned_to_the_commit_of_its_branch(hub, folder):
    commit = hub.push(REPO, folder)
    pinned = pin_model(model())
    assert (pinned.path, pinned.revision) == ("hf://tiny/sd", commit)
    assert pin_model(pinned) == pinned


def test_a_branch_that_moves_does_not_move_a_job(hub, folder, tmp_path):
    hub.push(REPO, folder)
    pinned = pin_model(model())
    first = find_model(pinned)
    later = build_tiny_stable_diffusion(tmp_path / "later", prediction_type="v_prediction")
    hub.push(REPO, later)
    assert find_model(pinned).revision == first.revision
    assert find_model(pin_model(model())).revision != first.revision
    assert pin_model(model(revision="main")).revision != pinned.revision


def test_the_files_make_the_revision_that_the_same_folder_makes(hub, folder):
    hub.push(REPO, folder)
    found = find_model(pin_model(model()))
    assert found.revision == describe_model(str(folder)).revision
    assert (found.pipeline_class, found.config) == ("StableDiffusionPipeline", None)


def test_only_what_is_needed_is_downloaded_and_counts(hub, folder, tmp_path):
    full = tmp_path / "full"
    shutil.copytree(folder, full)
    (full / "sd-v1-5.safetensors").write_bytes(b"the same once more")
    (full / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half of it")
    (full / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"another form")
    hub.push(REPO, full)
    found = find_model(pin_model(model()))
    assert found.revision == describe_model(str(folder)).revision
    fetched = " ".join(hub.asked)
    assert "unet/diffusion_pytorch_model.safetensors" in fetched
    for name in ("sd-v1-5.safetensors", "fp16.safetensors", "diffusion_pytorch_model.bin"):
        assert name not in fetched
    (found.path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"had by somebody else")
    assert find_model(pin_model(model())).revision == found.revision


def test_weights_of_the_old_form_are_taken_where_there_are_no_others(hub, folder, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "vae" / "diffusion_pytorch_model.safetensors").rename(
        old / "vae" / "diffusion_pytorch_model.bin"
    )
    hub.push(REPO, old)
    found = find_model(pin_model(model()))
    assert (found.path / "vae" / "diffusion_pytorch_model.bin").is_file()
    assert found.revision == describe_model(str(old)).revision


def test_pictures_are_those_of_the_folder(hub, folder):
    hub.push(REPO, folder)
    rows = [ask(0), ask(1, sampler="unipc")]
    expected = run(load(folder), rows)
    made = run(load(REPO), rows)
    for number, outcome in made.items():
        assert difference(outcome.pixels, expected[number].pixels) == 0


def test_a_pinned_model_that_is_cached_needs_no_hub(hub, folder):
    hub.push(REPO, folder)
    pinned = pin_model(model())
    first = find_model(pinned)
    asked = len(hub.asked)
    assert find_model(pinned).revision == first.revision
    assert len(hub.asked) == asked


def test_offline_a_branch_means_what_it_meant_when_it_was_cached(hub, folder, monkeypatch):
    commit = hub.push(REPO, folder)
    find_model(pin_model(model()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pin_model(model()).revision == commit
    assert find_model(pin_model(model())).path.is_dir()


def refusal(one):
    with pytest.raises(ModelUnusable) as caught:
        find_model(pin_model(one))
    return str(caught.value)


def test_offline_without_a_copy_says_what_where_and_what_to_do(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = refusal(model(revision="v2"))
    assert "the model tiny/sd, revision v2, cannot be had" in message
    assert f"{hub.endpoint} was not reached (HF_HUB_OFFLINE is set)" in message
    assert constants.HF_HUB_CACHE in message
    assert "run 'hf download tiny/sd'" in message
    assert "no folder tiny/sd is here" in message


def test_a_hub_that_does_not_answer_is_told_apart_from_an_unknown_model(hub, monkeypatch):
    assert "is not known there, or is private: check model.path" in refusal(model())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 was not reached and" in refusal(model("tiny/other"))


def test_half_a_copy_is_no_copy(hub, folder, monkeypatch):
    hub.push(REPO, folder)
    pin_model(model())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "holds no whole copy of it" in refusal(model())


def test_an_unknown_revision_is_named(hub, folder):
    hub.push(REPO, folder)
    assert "has no branch, tag or commit v9: check model.revision" in refusal(model(revision="v9"))


def test_a_gated_model_says_how_to_get_in(hub, folder):
    hub.push(REPO, folder)
    hub.gated.add(REPO)
    message = refusal(model())
    assert "wants its licence accepted first" in message
    assert "HF_TOKEN" in message


def test_a_repository_in_another_format_is_refused(hub, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model.safetensors").write_bytes(b"x")
    hub.push(REPO, tmp_path / "x")
    assert "has no model_index.json: it is not in the diffusers format" in refusal(model())


def test_a_file_of_a_repository_is_no_hub_id(hub):
    assert "expected hf://owner/name" in refusal(model("hf://tiny/sd/sd.safetensors"))


def test_a_folder_of_that_name_comes_before_the_hub(hub, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / REPO)
    assert pin_model(model()).path == str(tmp_path / REPO)
    assert hub.asked == []


def test_a_revision_goes_with_hub_ids_alone(hub, folder):
    with pytest.raises(
        ConfigError, match=r"model\.revision is v1, but model\.path is .* no hub id"
    ):
        pin_model(model(str(folder), revision="v1"))


def test_the_class_of_a_hub_model_is_known_before_it_is_downloaded(hub, tmp_path):
    hub.push(REPO, build_tiny_latent_diffusion(tmp_path / "ldm"), branch="v1")
    assert peek_class(REPO, revision="v1") == "LDMTextToImagePipeline"
    assert peek_class(REPO) is None
    assert not any("safetensors" in one for one in hub.asked)
