"""What ``imagemill triton export`` writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest

from conf.errors import ConfigError, ModelUnusable, UnknownKey
from conf.schema import EngineConfig, ModelConfig
from conf.triton_server import TritonServerConfig, parse_triton_server
from jobs.cli import main
from jobs.configure import compose
from jobs.triton_export import export
from operators.model_source import find_model
from operators.triton.repository import export_model
from operators.triton.serving import load_on
from operators.triton.settings import read_settings
from tests.tiny_model import build_tiny_stable_diffusion

FAST = ("engine=simulated", "engine.simulated_speed=0")
EXACT_CONFIG = """\
name: "shapes"
backend: "python"
max_batch_size: 8
input [
  { name: "prompt" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "negative_prompt" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "seed" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "steps" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "guidance_scale" data_type: TYPE_FP64 dims: [ 1 ] },
  { name: "sampler" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "width" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "height" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [
  { name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] },
  { name: "gpu_seconds" data_type: TYPE_FP64 dims: [ 1 ] },
  { name: "batch_rows" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "truncated_tokens" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "revision" data_type: TYPE_STRING dims: [ 1 ] }
]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 8 ]
  max_queue_delay_microseconds: 50000
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 0
    allow_timeout_override: true
    max_queue_size: 256
  }
}
version_policy { latest { num_versions: 1 } }
model_warmup [
  { name: "a full batch" batch_size: 8 count: 1
    inputs { key: "prompt"
      value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "prompt" } }
    inputs { key: "negative_prompt"
      value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "negative_prompt" } }
    inputs { key: "seed"
      value { data_type: TYPE_INT64 dims: [ 1 ] input_data_file: "seed" } }
    inputs { key: "steps"
      value { data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "steps" } }
    inputs { key: "guidance_scale"
      value { data_type: TYPE_FP64 dims: [ 1 ] input_data_file: "guidance_scale" } }
    inputs { key: "sampler"
      value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "sampler" } }
    inputs { key: "width"
      value { data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "width" } }
    inputs { key: "height"
      value { data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "height" } }
  }
]
parameters { key: "imagemill_signature" value { string_value: "2" } }
parameters { key: "imagemill_model" value { string_value: "shapes" } }
parameters { key: "imagemill_model_revision" value { string_value: "REVISION" } }
"""


def config_of(repository: Path, *keys: str, name: str = "shapes") -> str:
    export("shapes", str(repository), [*FAST, *keys])
    return (repository / name / "config.pbtxt").read_text()


def asked(*words: str) -> tuple[EngineConfig, ModelConfig]:
    config = compose([*words, "input.path=none", "output.path=none"])
    return config.engine, config.model


def test_the_configuration_is_this(tmp_path: Path) -> None:
    lines = export("shapes", str(tmp_path), [])
    _, model = asked("model=shapes")
    revision = find_model(model).revision
    found = (tmp_path / "shapes" / "config.pbtxt").read_text()
    assert found == EXACT_CONFIG.replace("REVISION", revision)
    assert lines[0].startswith(f"wrote {tmp_path}/shapes, version 1: ")
    assert lines[0].endswith(f" MB, model shapes of revision {revision}")
    assert lines[1].startswith("engine stepwise (StableDiffusionPipeline has an adapter")
    assert lines[1].endswith("dynamic, batches of 8 on the CPU")
    assert lines[2] == f"serve it: tritonserver --model-repository={tmp_path}"


def test_the_warm_up_asks_for_the_models_own_size_and_sampler(tmp_path: Path) -> None:
    export("shapes", str(tmp_path), [*FAST, "model.width=96"])
    files = {file.name: file.read_bytes() for file in (tmp_path / "shapes" / "warmup").iterdir()}
    assert files["sampler"] == struct.pack("<I", 4) + b"ddim"
    assert files["negative_prompt"] == struct.pack("<I", 0)
    assert struct.unpack("<ii", files["width"] + files["height"]) == (96, 64)
    assert struct.unpack("<qd", files["seed"] + files["guidance_scale"]) == (0, 2.0)
    assert struct.unpack("<i", files["steps"]) == (2,)


def test_a_continuous_model_is_decoupled_and_waits_for_no_batch(tmp_path: Path) -> None:
    text = config_of(tmp_path, "triton.mode=continuous", "engine.max_batch=4")
    assert "model_transaction_policy { decoupled: true }\n" in text
    assert "preferred_batch_size" not in text
    assert "max_queue_delay" not in text
    assert "max_batch_size: 4\n" in text
    assert read_settings(tmp_path / "shapes" / "1").held == 12


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("triton.gpus=0", "model.needs_gpu=true"), "[ { count: 1 kind: KIND_CPU } ]"),
        (("model.needs_gpu=true",), "[ { count: 1 kind: KIND_GPU } ]"),
        (("triton.gpus=2",), "[ { count: 1 kind: KIND_GPU gpus: [ 0, 1 ] } ]"),
    ],
)
def test_each_gpu_gets_an_instance(keys: tuple[str, ...], line: str, tmp_path: Path) -> None:
    text = config_of(tmp_path, "engine.max_batch=null", *keys)
    assert f"instance_group {line}\n" in text
    assert f"max_batch_size: {8 if 'CPU' in line else 16}\n" in text


def test_the_queue_is_as_it_was_asked(tmp_path: Path) -> None:
    text = config_of(
        tmp_path,
        "triton.model=painter",
        "triton.delay_ms=7.5",
        "triton.priority_levels=1",
        "triton.max_queue=9",
        "triton.queue_timeout_s=1.5",
        "triton.timeout_action=delay",
        name="painter",
    )
    for line in (
        'name: "painter"',
        "  max_queue_delay_microseconds: 7500",
        "  priority_levels: 1",
        "  default_priority_level: 1",
        "    max_queue_size: 9",
        "    default_timeout_microseconds: 1500000",
        "    timeout_action: DELAY",
        'parameters { key: "imagemill_model" value { string_value: "shapes" } }',
    ):
        assert f"{line}\n" in text


def test_a_version_holds_all_that_the_server_needs(tmp_path: Path) -> None:
    export("shapes", str(tmp_path), ["engine.max_batch=2"])
    version = tmp_path / "shapes" / "1"
    assert sorted(entry.name for entry in version.iterdir()) == [
        "imagemill",
        "model.py",
        "settings.json",
        "weights",
    ]
    settings = read_settings(version)
    assert settings.model.path == str(version / "weights")
    assert find_model(settings.model).revision == settings.revision
    assert settings.engine.name == "stepwise"
    assert settings.engine.max_batch == 2
    code = version / "imagemill"
    assert (code / "operators" / "engines" / "stepwise.py").is_file()
    assert (code / "conf" / "schema.py").is_file()
    assert not list(code.rglob("__pycache__"))
    assert not (tmp_path / "shapes" / "1" / "imagemill" / "models").exists()


def test_the_models_files_may_stay_where_they_are(tmp_path: Path) -> None:
    model = build_tiny_stable_diffusion(tmp_path / "tiny")
    export(str(model), str(tmp_path / "repo"), ["triton.copy_weights=false"])
    version = tmp_path / "repo" / "tiny" / "1"
    assert not (version / "weights").exists()
    assert read_settings(version).model.path == str(model)
    export("shapes", str(tmp_path / "repo"), ["triton.copy_weights=false"])
    named = read_settings(tmp_path / "repo" / "shapes" / "1").model.path
    assert named.endswith("/models/shapes/weights")
    assert Path(named).is_dir()


def test_a_further_export_is_the_next_version(tmp_path: Path) -> None:
    config_of(tmp_path)
    text = config_of(tmp_path, "triton.mode=continuous")
    folder = tmp_path / "shapes"
    assert sorted(entry.name for entry in folder.iterdir()) == ["1", "2", "config.pbtxt", "warmup"]
    assert "decoupled: true" in text
    (folder / "1").rename(folder / "9")
    config_of(tmp_path)
    assert (folder / "10" / "settings.json").is_file()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "config.pbtxt").write_text('name: "shapes"\n')
    with pytest.raises(
        ConfigError, match=r"shapes holds a model that ImageMill did not write; .*triton\.model="
    ):
        config_of(tmp_path)
    assert len(list((tmp_path / "shapes").iterdir())) == 1


def test_a_repository_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*file/shapes: .* give a folder"):
        config_of(tmp_path / "file")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (["triton.mod=dynamic"], "has no key 'triton.mod'; did you mean triton.mode?"),
        (["triton.mode=eager"], "triton.mode is 'eager'; expected one of dynamic, continuous"),
        (["triton.max_queue=0"], "triton.max_queue is 0; expected at least 1"),
        (["triton.model=a/b"], "'a/b' cannot be the name of a model on a server"),
        (["model.name=my model"], "'my model' cannot be the name of a model on a server"),
        (["triton.mode"], "'triton.mode' is not for triton export"),
        (["triton.mode=[a"], "'triton.mode=[a' is not key=value"),
        (["sampling.steps=3"], "'sampling.steps=3' is not for triton export"),
        (["engine=triton"], "engine.name is triton; a server runs auto, stepwise"),
        (["engine.max_batch=0"], "engine.max_batch is 0; expected at least 1"),
    ],
)
def test_keys_that_will_not_do_are_told_and_nothing_is_written(
    keys: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["triton", "export", "shapes", str(tmp_path / "repo"), *keys]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "repo").exists()


def test_a_url_is_no_repository() -> None:
    with pytest.raises(ConfigError, match="expected a folder of this machine"):
        export("shapes", "s3://bucket/repo", [])


def test_an_engine_that_no_server_runs_is_refused(tmp_path: Path) -> None:
    engine, model = asked("model=shapes")
    other = dataclasses.replace(engine, name="triton")
    with pytest.raises(ConfigError, match=r"a server runs auto, .*\. Export with engine=auto"):
        export_model(tmp_path, engine=other, model=model, config=TritonServerConfig())


def test_an_unknown_key_names_all_where_none_is_near() -> None:
    with pytest.raises(UnknownKey, match=r"its keys are triton\.mode, triton\.model, triton\.gpus"):
        parse_triton_server({"zzz": 1})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "has schema 2; expected 1. Export the model again"),
        ({"held": None}, "is not what 'imagemill triton export' writes"),
        ({"engine": {}}, "engine.name is not set"),
    ],
)
def test_settings_of_another_kind_are_refused(
    change: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    config_of(tmp_path)
    file = tmp_path / "shapes" / "1" / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        read_settings(file.parent)


def test_settings_that_are_gone_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"FileNotFoundError.*; export the model again"):
        read_settings(tmp_path)


def test_other_weights_than_the_exported_are_refused(tmp_path: Path) -> None:
    export(str(build_tiny_stable_diffusion(tmp_path / "tiny")), str(tmp_path / "repo"), [])
    version = tmp_path / "repo" / "tiny" / "1"
    (version / "weights" / "unet" / "more.txt").write_text("x")
    with pytest.raises(ModelUnusable, match=r"has revision \w+; expected \w+, which was exported"):
        load_on(None, read_settings(version))


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    config_of(tmp_path)
    with pytest.raises(ConfigError, match=r"is for GPU 99, and torch .* finds \d+ GPUs here"):
        load_on(99, read_settings(tmp_path / "shapes" / "1"))
