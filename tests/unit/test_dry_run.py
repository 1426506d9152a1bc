"""A dry run's words, and under which name a machine's rate is remembered."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from input_tables import prompts, write_rows

from jobs import measured, rates
from jobs.dry_run import dry_run_lines
from jobs.measured import cluster_key, device_name, rate_key
from tests.small_jobs import run_small_job, small_config


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(measured, "_GPUS", tmp_path / "gpus")


def lines_of(tmp_path: Path, *overrides: str) -> list[str]:
    given = [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}"]
    return dry_run_lines([*given, "engine=simulated", *overrides])


def one(lines: list[str], name: str) -> str:
    (found,) = [text for text in lines if text.startswith(f"{name} ")]
    return found[10:]


def test_one_of_anything_is_not_several(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(1))
    lines = lines_of(tmp_path, "input.shard_rows=1")
    assert one(lines, "input") == "1 row in 1 file, 1 shard of up to 1 row"
    assert one(lines, "shape") == "64 x 64: 1 image in batches of their own"
    assert one(lines, "time").endswith("1 worker asked for")


def test_a_file_that_is_left_out_is_told_once(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(3))
    (tmp_path / "in" / "b.parquet").write_bytes(b"broken")
    lines = lines_of(tmp_path)
    assert "b.parquet" in one(lines, "left out")
    assert sum("b.parquet" in text for text in lines) == 1
    assert one(lines, "input").startswith("3 rows in 2 files, ")


def test_an_empty_input_makes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", {"prompt": [""]})
    assert "nothing to make" in one(lines_of(tmp_path), "time")


def test_the_simulated_engine_is_estimated_from_its_table(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(80))
    asked = ["sampling.steps=20", "sampling.guidance_scale=4", "engine.max_batch=8"]
    seconds = 80 * 2 * 20 * 0.412 / 16
    expected = f"about {seconds:.0f} s of one worker's waiting by the engine's table"
    assert one(lines_of(tmp_path, *asked), "time").startswith(expected.replace("82", "1 min 22"))
    fast = one(lines_of(tmp_path, *asked, "engine.simulated_speed=10"), "time")
    assert fast.startswith("about 8.24 s of")
    assert one(lines_of(tmp_path, "engine.simulated_speed=0"), "time").startswith("about 0 s of")


def test_the_guidance_of_a_model_that_sees_each_row_once_takes_no_time(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(80))
    model = tmp_path / "flux"
    model.mkdir()
    asked = [f"model={model}", "sampling.steps=20", "engine.max_batch=8", "sampling.width=64"]
    asked += ["sampling.height=64", "sampling.guidance_scale=4", "model.needs_gpu=false"]
    told = {}
    for name in ("StableDiffusionPipeline", "FluxPipeline"):
        (model / "model_index.json").write_text(f'{{"_class_name": "{name}"}}')
        lines = lines_of(tmp_path, *asked, "sampling.sampler=ddim")
        told[name] = (one(lines, "images"), one(lines, "time").partition(" of")[0])
    assert told == {
        "StableDiffusionPipeline": (
            "80, 80 with a guidance pass and 0 without",
            "about 1 min 22 s",
        ),
        "FluxPipeline": ("80, 0 with a guidance pass and 80 without", "about 47 s"),
    }


def test_a_job_that_was_too_short_to_tell_leaves_no_rate(tmp_path: Path) -> None:
    done = run_small_job(tmp_path, [{"prompt": "a"}])
    measured.remember_rate(done.store, done.job, done.plan)
    assert rates.estimate(rate_key(done.config, "simulated"), 1.0) is None


def test_the_rate_of_a_run_counts_guidance_as_its_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "_TELLING_S", 0.0)
    index = tmp_path / "model" / "model_index.json"
    index.parent.mkdir()
    rows = [{"prompt": "a", "guidance_scale": 4.0}, {"prompt": "b", "guidance_scale": 1.0}]
    done = run_small_job(tmp_path, rows, **{"model.path": str(index.parent)})
    rate = {}
    for name in ("StableDiffusionPipeline", "FluxPipeline"):
        index.write_text(f'{{"_class_name": "{name}"}}')
        measured.remember_rate(done.store, done.job, done.plan)
        seconds = rates.estimate(rate_key(done.config, "simulated"), 1.0)
        assert seconds is not None
        rate[name] = 1 / seconds
    assert rate["StableDiffusionPipeline"] == pytest.approx(1.5 * rate["FluxPipeline"])


def test_a_measured_rate_goes_before_the_table(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(10))
    config = small_config(tmp_path, {"engine.simulated_speed": 1.0})
    pixel_steps = 10 * 64 * 64 * 2 * 20
    rates.remember(rate_key(config, "simulated"), pixel_steps=pixel_steps, seconds=5)
    asked = ["sampling.steps=20", "sampling.guidance_scale=4"]
    assert "about 5 s of one worker's denoising" in one(lines_of(tmp_path, *asked), "time")


@pytest.mark.parametrize(
    "change", [{"simulated_speed": 2.0}, {"simulated_seconds": {1: 0.5}}, {"precision": "float16"}]
)
def test_simulated_engines_of_other_speeds_share_no_rate(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    config = small_config(tmp_path)
    other = replace(config, engine=replace(config.engine, **change))
    assert rate_key(config, "r") != rate_key(other, "r")


def test_the_speed_of_a_real_engine_is_not_told_by_the_simulated_ones(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    real = replace(config, engine=replace(config.engine, name="stepwise"))
    other = replace(real, engine=replace(real.engine, simulated_speed=7.0))
    assert rate_key(real, "r") == rate_key(other, "r")


def test_weights_that_come_and_go_have_a_rate_of_their_own(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    real = replace(config, engine=replace(config.engine, name="stepwise"))
    slow = replace(real, engine=replace(real.engine, offload="sequential"))
    assert rate_key(real, "r") != rate_key(slow, "r")
    keys = (cluster_key(one, "r", device="NVIDIA L4") for one in (real, slow))
    assert len(set(keys)) == 2


def test_the_device_is_named_by_the_driver_then_by_nvidia_smi_then_by_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "usable_cores", lambda: 6)
    assert device_name() == "cpu-6"
    listing = tmp_path / "bin" / "nvidia-smi"
    listing.parent.mkdir()
    listing.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-1)'\n")
    listing.chmod(listing.stat().st_mode | stat.S_IXUSR)
    assert device_name() == "NVIDIA L4"
    listing.write_text("#!/bin/sh\nexit 9\n")
    assert device_name() == "cpu-6"
    information = tmp_path / "gpus" / "0000:01:00.0" / "information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n")
    assert device_name() == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("where", ["cluster.address=local", "cluster.gpus_per_worker=0"])
def test_offload_is_refused_where_no_worker_would_get_a_gpu(tmp_path: Path, where: str) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(1))
    elsewhere = [] if "address" in where else ["cluster.address=ray://elsewhere:1"]
    asked = ["engine=stepwise", "engine.offload=model", where, *elsewhere]
    assert "run would be refused: engine.offload=model keeps" in one(
        lines_of(tmp_path, *asked), "refused"
    )
    elsewhere = ["engine=stepwise", "engine.offload=model", "cluster.address=ray://elsewhere:1"]
    assert not [line for line in lines_of(tmp_path, *elsewhere) if line.startswith("refused")]
