"""Model folders: found whole, or refused with what is missing and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import conf
from conf.errors import ModelUnusable
from operators.model_files import COMPONENTS, describe_model, resolve_model_path

INDEX: dict[str, object] = {
    "_class_name": "StableDiffusionPipeline",
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


XL_INDEX = INDEX | {
    "_class_name": "StableDiffusionXLPipeline",
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
SD3_INDEX = XL_INDEX | {
    "_class_name": "StableDiffusion3Pipeline",
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
}
WEIGHTLESS = {"scheduler", "tokenizer", "tokenizer_2", "tokenizer_3"}


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model", INDEX)


def write_folder(model, index):
    for part in COMPONENTS[index["_class_name"]]:
        (model / part).mkdir(parents=True)
        (model / part / "config.json").write_text("{}")
        if part not in WEIGHTLESS:
            (model / part / "model.safetensors").write_bytes(part.encode())
    (model / "model_index.json").write_text(json.dumps(index))
    return model


def test_a_whole_folder_is_described(folder):
    found = describe_model(str(folder))
    assert found.path == folder
    assert found.pipeline_class == "StableDiffusionPipeline"
    assert found.bytes == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert len(found.revision) == 16
    assert int(found.revision, 16) >= 0


def test_the_revision_follows_contents_and_names_but_not_hidden_files(folder):
    first = describe_model(str(folder)).revision
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("y")
    (folder / ".DS_Store").write_text("z")
    assert describe_model(str(folder)).revision == first
    (folder / "unet" / "model.safetensors").write_bytes(b"tenu")
    changed = describe_model(str(folder)).revision
    assert changed != first
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "other.safetensors")
    assert describe_model(str(folder)).revision not in {first, changed}


def test_package_paths_lie_beside_the_conf_package():
    expected = Path(conf.__file__).resolve().parent.parent / "models" / "x"
    assert resolve_model_path("package:models/x") == expected


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert resolve_model_path("~/m") == Path("/somewhere/m")


def refusal(path):
    with pytest.raises(ModelUnusable) as caught:
        describe_model(str(path))
    return str(caught.value)


def test_an_absent_folder_is_named(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "found nothing" in message
    assert "Set model.path" in message


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "sd.safetensors").write_bytes(b"x")
    assert "found a file" in refusal(tmp_path / "sd.safetensors")


def test_a_folder_without_index_says_what_it_holds(folder):
    (folder / "model_index.json").unlink()
    message = refusal(folder)
    assert "no model_index.json" in message
    assert "unet" in message


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_broken_index_is_refused(folder, content):
    (folder / "model_index.json").write_text(content, encoding="latin-1")
    assert "Download the model again" in refusal(folder)


def test_a_pipeline_without_adapter_is_described_by_what_its_index_names(folder):
    index = {**INDEX, "_class_name": "KolorsPipeline", "movq": ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "no files in 'movq'" in refusal(folder)
    (folder / "movq").mkdir()
    (folder / "movq" / "config.json").write_text("{}")
    assert f"{folder / 'movq'} has no weights" in refusal(folder)
    (folder / "movq" / "model.safetensors").write_bytes(b"movq")
    found = describe_model(str(folder))
    assert found.pipeline_class == "KolorsPipeline"
    assert found.components == ("movq", *sorted(COMPONENTS["StableDiffusionPipeline"]))


def test_an_index_that_names_no_class_is_refused(folder):
    (folder / "model_index.json").write_text(json.dumps({**INDEX, "_class_name": None}))
    assert "names no pipeline class: found _class_name=None" in refusal(folder)


def test_the_settings_of_a_part_are_read_from_its_folder(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text('{"clip_sample": true}')
    (folder / "unet" / "config.json").write_text('{"in_channels": 4}')
    found = describe_model(str(folder))
    assert found.settings("scheduler") == {"clip_sample": True}
    assert found.settings("unet") == {"in_channels": 4}
    assert found.settings("transformer") == {}


def test_a_refiner_is_refused_as_one_that_needs_an_image(folder):
    index = {**XL_INDEX, "_class_name": "StableDiffusionXLImg2ImgPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    message = refusal(folder)
    assert "is a StableDiffusionXLImg2ImgPipeline; it starts from an image, as refiners" in message


@pytest.mark.parametrize("part", COMPONENTS["StableDiffusionXLPipeline"])
def test_each_component_of_stable_diffusion_xl_is_needed(tmp_path, part):
    folder = write_folder(tmp_path / "xl", XL_INDEX)
    assert describe_model(str(folder)).pipeline_class == "StableDiffusionXLPipeline"
    weights = folder / part / "model.safetensors"
    assert weights.exists() is (part not in WEIGHTLESS)
    if weights.exists():
        weights.unlink()
        assert f"{folder / part} has no weights" in refusal(folder)
    (folder / part).rename(folder / "elsewhere")
    assert f"no files in '{part}'" in refusal(folder)


def test_stable_diffusion_3_may_do_without_t5(tmp_path):
    folder = write_folder(tmp_path / "sd3", SD3_INDEX)
    assert describe_model(str(folder)).components == COMPONENTS["StableDiffusion3Pipeline"]
    for part in ("text_encoder_3", "tokenizer_3"):
        (folder / part).rename(tmp_path / part)
        assert f"no files in '{part}'" in refusal(folder)
        (tmp_path / part).rename(folder / part)
    index = SD3_INDEX | {"text_encoder_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "text_encoder_3").rename(tmp_path / "text_encoder_3")
    found = describe_model(str(folder))
    left_out = set(COMPONENTS["StableDiffusion3Pipeline"]) - set(found.components)
    assert left_out == {"text_encoder_3", "tokenizer_3"}


@pytest.mark.parametrize("names", [{"tokenizer_3": [None, None]}, {"text_encoder_3": None}])
def test_an_index_must_say_that_t5_is_left_out(tmp_path, names):
    folder = write_folder(tmp_path / "sd3", SD3_INDEX | names)
    assert f"names no usable '{next(iter(names))}'" in refusal(folder)


@pytest.mark.parametrize("entry", [None, [None, None], ["diffusers"], "unet"])
def test_an_index_without_a_needed_component_is_refused(folder, entry):
    (folder / "model_index.json").write_text(json.dumps({**INDEX, "unet": entry}))
    assert "names no usable 'unet'" in refusal(folder)


@pytest.mark.parametrize("part", ["scheduler", "text_encoder", "tokenizer", "unet", "vae"])
def test_a_missing_component_is_named(folder, part):
    (folder / part).rename(folder / "elsewhere")
    assert f"no files in '{part}'" in refusal(folder)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_component_without_weights_is_named(folder, part):
    (folder / part / "model.safetensors").unlink()
    message = refusal(folder)
    assert f"{folder / part} has no weights" in message
    assert "found config.json" in message
