"""Overrides reach the configuration as they were typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import ConfigError
from jobs.configure import FAMILY_DEFAULTS, choices, compose
from jobs.models import model_lines
from jobs.run import prepare
from operators.model_files import COMPONENTS


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/a\\b.parquet",
        "/tmp/it's here.parquet",
        "/x/${home}/y.parquet",
        "/data/part=1,2/[a] {b}.parquet",
        "ends with\\",
        "/é/\N{GRINNING FACE}.parquet",
        "1e5",
        "null",
    ],
)
def test_a_text_arrives_as_it_was_typed(path: str) -> None:
    assert compose([f"input.path={path}", "output.path=out"]).input.path == path


def test_quotes_around_a_text_are_the_shells_habit_and_go() -> None:
    assert compose(["input.path='a b'", 'output.path="c d"']).output.path == "c d"


def test_null_is_null_where_it_may_be() -> None:
    config = compose(["input.path=x", "output.path=y", "sampling.sampler=null", "job.name=null"])
    assert config.sampling.sampler is None
    assert config.job.name is None


def test_tags_and_storage_options_are_free() -> None:
    config = compose(
        ["input.path=x", "output.path=y", "job.tags.season=winter 26", "storage.options.anon=a"]
    )
    assert config.job.tags == {"season": "winter 26"}
    assert config.storage.options == {"anon": "a"}


def test_a_model_folder_is_short_for_custom() -> None:
    config = compose(["input.path=x", "output.path=y", "model=/models/sd15"])
    assert (config.model.name, config.model.path) == ("sd15", "/models/sd15")


@pytest.mark.parametrize(
    ("pipeline_class", "size", "steps"),
    [
        ("StableDiffusionXLPipeline", 1024, 30),
        ("StableDiffusionPipeline", 512, 30),
        ("PixArtSigmaPipeline", 1024, 20),
        ("StableDiffusion3Pipeline", 1024, 28),
        ("FluxPipeline", 1024, 28),
    ],
)
def test_a_model_folder_brings_the_defaults_of_its_family(
    tmp_path: Path, pipeline_class: str, size: int, steps: int
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model_index.json").write_text(f'{{"_class_name": "{pipeline_class}"}}')
    model = compose(["input.path=x", "output.path=y", f"model={folder}"]).model
    assert (model.name, model.path) == ("mine", str(folder))
    assert (model.width, model.height, model.steps) == (size, size, steps)
    assert model.needs_gpu is (size == 1024)


def test_every_family_with_defaults_is_supported_and_a_choice() -> None:
    assert set(FAMILY_DEFAULTS) <= set(COMPONENTS)
    assert set(FAMILY_DEFAULTS.values()) < set(choices("model"))


def test_the_models_are_listed_with_what_is_missing_and_how_to_use_ones_own() -> None:
    lines = model_lines()
    (sdxl,) = [line for line in lines if line.startswith("sdxl ")]
    assert "give model.path=…, a folder, file or hub id" in sdxl
    assert "defaults 1024x1024, 30 steps of euler, guidance 5" in sdxl
    (shapes,) = [line for line in lines if line.startswith("shapes ")]
    assert "StableDiffusionPipeline, revision " in shapes
    assert all(name in lines[-1] for name in ("model=/path/to/folder", *COMPONENTS))


def test_the_digest_tells_what_is_made_not_where_or_how_fast() -> None:
    base = compose(["input.path=x", "output.path=y"]).digest()
    same = ["output.path=z", "cluster.workers=7", "engine.max_batch=3", "job.commit_images=9"]
    same += ["model.needs_gpu=true", "engine.compile=full", "engine.channels_last=true"]
    same += ["engine.vae_slicing=true", "engine.offload=model"]
    assert {compose(["input.path=x", "output.path=y", key]).digest() for key in same} == {base}
    other = ["job.seed=1", "output.image=webp", "sampling.steps=9", "model.guidance_scale=3"]
    other += ["engine.precision=float16", "engine.vae_tiling=true", "engine.allow_tf32=true"]
    other += ["engine.attention=flash"]
    assert (
        len({compose(["input.path=x", "output.path=y", k]).digest() for k in other} | {base}) == 9
    )


@pytest.mark.parametrize("key", ["input.path", "output.path"])
def test_an_empty_path_is_refused(key: str) -> None:
    paths = {"input.path": "in.parquet", "output.path": "out", key: ""}
    with pytest.raises(ConfigError, match=f"{key} is empty; expected a path"):
        prepare([f"{name}={path}" for name, path in paths.items()])


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = prepare(["input.path=in.parquet", "output.path=sub/out", "engine=simulated"])
    assert config.input.path == str(tmp_path / "in.parquet")
    assert config.output.path == str(tmp_path / "sub" / "out")
    assert config.job.name == "out"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["cluster.workers=2", "cluster.max_workers=4"],
            "cluster.workers is 2, an exact number, beside cluster.min_workers=1 and "
            "cluster.max_workers=4; expected one or the other; give cluster.workers=null for a "
            "range",
        ),
        (
            ["cluster.workers=2", "cluster.min_workers=2"],
            "cluster.workers is 2, an exact number, beside cluster.min_workers=2 and "
            "cluster.max_workers=null; expected one or the other; give cluster.workers=null for a "
            "range",
        ),
        (
            ["cluster.min_workers=3", "cluster.max_workers=2"],
            "cluster.max_workers is 2; expected at least cluster.min_workers (3)",
        ),
        (
            ["cluster.gpus_per_worker=1.5"],
            "cluster.gpus_per_worker is 1.5; expected a whole number, or a part of one GPU",
        ),
        (
            ["model.needs_gpu=true", "cluster.gpus_per_worker=0"],
            "cluster.gpus_per_worker is 0, and the model shapes needs a GPU (model.needs_gpu); "
            "give each worker one, or choose another model",
        ),
    ],
)
def test_workers_that_contradict_themselves_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(["input.path=x", "output.path=y", *given])
    assert str(raised.value) == message


def test_the_simulated_engine_needs_no_gpu_whatever_the_model() -> None:
    given = ["engine=simulated", "model.needs_gpu=true", "cluster.gpus_per_worker=0"]
    assert compose(["input.path=x", "output.path=y", *given]).model.needs_gpu


def test_an_endpoint_with_credentials_is_refused_without_showing_them() -> None:
    endpoint = "storage.endpoint_url=http://key:hunter2@127.0.0.1:9000"
    with pytest.raises(ConfigError, match=r"^storage\.endpoint_url carries credentials") as caught:
        compose(["input.path=x", "output.path=y", endpoint])
    assert "hunter2" not in str(caught.value)
