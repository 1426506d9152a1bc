"""Whether a job is long enough to compile for, in numbers that were measured or say that they are
assumed; and what the driver says of its workers' engines."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from input_tables import prompts, write_rows

from cluster.coordinator import Coordinator, WorkerProgress
from conf.schema import RunConfig
from jobs import measured, rates
from jobs.compile_choice import CompileChoice, JobSize, choose_compile, remember_compilation
from jobs.dry_run import dry_run_lines
from jobs.engine_news import EngineNews
from jobs.execute import _decided
from jobs.measured import rate_key
from operators.engine import EngineInfo
from tests.small_jobs import prepare_small_job, small_config

HOUR = JobSize(pixel_steps=3600, usual=1.0, workers=1)
"""An hour's work where one pixel-step takes a second."""


@pytest.fixture(autouse=True)
def cpu_where_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "device_name", lambda: "cpu-2")
    monkeypatch.setattr("jobs.compile_choice.device_name", lambda: "cpu-2")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return told(small_config(tmp_path), name="stepwise", compile="auto", precision="bfloat16")


def told(config: RunConfig, **engine: Any) -> RunConfig:
    return replace(config, engine=replace(config.engine, **engine))


def ran(config: RunConfig, how: str, *, rate: float) -> None:
    """A run of this many pixel-steps a second was measured."""
    key = rate_key(told(config, compile=how), "r")
    rates.remember(key, pixel_steps=rate, seconds=1)


def engine_of(how: str, seconds: float = 0.0) -> EngineInfo:
    return EngineInfo(
        name="stepwise",
        model="m",
        model_revision="r",
        device="cpu",
        precision="float32",
        compile=how,
        compile_seconds=seconds,
        max_batch=8,
        simulated=False,
    )


def choose(config: RunConfig, size: JobSize = HOUR) -> CompileChoice:
    return choose_compile(config, "r", lambda: size)


def not_asked() -> JobSize:
    raise AssertionError("the job's size was counted in vain")


def test_without_a_measured_run_nothing_is_compiled_and_no_row_is_read(config: RunConfig) -> None:
    choice = choose_compile(config, "r", not_asked)
    assert choice == CompileChoice(
        how="off", why="off: no run of this model was measured here yet to tell whether it pays"
    )


def test_a_long_job_is_compiled_and_says_what_is_assumed(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    assert choose(config) == CompileChoice(
        how="full",
        why="full: costs 1 min 30 s, saves 12 min 00 s (assumed, never measured here)",
    )


def test_a_short_job_is_not(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    assert choose(config, replace(HOUR, pixel_steps=400)) == CompileChoice(
        how="off",
        why="off: full would cost 1 min 30 s and save 1 min 20 s (assumed, never measured here)",
    )


def test_many_workers_share_what_is_saved_and_each_compiles(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    assert choose(config, replace(HOUR, workers=10)).how == "off"


def test_sizes_that_are_not_compiled_save_nothing(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    assert choose(config, replace(HOUR, usual=0.1)).how == "off"


def test_measured_numbers_go_before_assumed_ones(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    ran(config, "full", rate=3.0)
    asked = told(config, compile="full")
    assert remember_compilation(asked, "r", [engine_of("full", 45.0)]) == asked
    assert choose(config).why == "full: costs 45 s, saves 40 min 00 s (measured here)"
    ran(config, "full", rate=0.5)
    assert choose(config).why == "off: full would cost 45 s and save 0 s (measured here)"


def test_less_is_assumed_of_exact_arithmetic_and_nothing_of_what_nobody_measured(
    config: RunConfig,
) -> None:
    for precision, words in (("auto", "saves 7 min 50 s"), ("float16", "save 0 s")):
        asked = told(config, precision=precision)
        ran(asked, "off", rate=1.0)
        assert words in choose(asked).why


def test_on_a_gpu_the_repeated_blocks_are_compiled(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "device_name", lambda: "NVIDIA L4")
    monkeypatch.setattr("jobs.compile_choice.device_name", lambda: "NVIDIA L4")
    ran(config, "off", rate=1.0)
    expected = "regional: costs 45 s, saves 10 min 00 s (assumed, never measured here)"
    assert choose(config).why == expected


@pytest.mark.parametrize("asked", ["off", "regional", "full"])
def test_what_the_user_asks_for_is_done(config: RunConfig, asked: str) -> None:
    choice = choose_compile(told(config, compile=asked), "r", not_asked)
    assert choice == CompileChoice(how=asked, why=f"{asked}, as engine.compile says")


def test_a_cluster_elsewhere_is_not_judged_by_this_machine(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    away = replace(config, cluster=replace(config.cluster, address="auto"))
    choice = choose_compile(away, "r", not_asked)
    assert choice.how == "off"
    assert "give engine.compile=regional or full to compile" in choice.why
    remember_compilation(told(away, compile="full"), "r", [engine_of("full", 45.0)])
    ran(config, "full", rate=3.0)
    assert "assumed" in choose(config).why


def test_offloaded_weights_are_not_compiled(config: RunConfig) -> None:
    ran(config, "off", rate=1.0)
    choice = choose_compile(told(config, offload="group"), "r", not_asked)
    assert choice == CompileChoice(how="off", why="off: weights that come and go are not compiled")


def test_a_run_that_could_not_compile_is_remembered_as_one_that_did_not(config: RunConfig) -> None:
    asked = told(config, compile="full")
    assert remember_compilation(asked, "r", [engine_of("off", 3.0)]) == told(config, compile="off")
    mixed = [engine_of("off", 3.0), engine_of("full", 50.0)]
    assert remember_compilation(asked, "r", mixed) == asked
    assert remember_compilation(asked, "r", []) == asked


def test_auto_and_float32_are_one_rate_on_a_cpu(config: RunConfig) -> None:
    auto, exact = told(config, precision="auto"), told(config, precision="float32")
    assert rate_key(auto, "r") == rate_key(exact, "r")
    assert rate_key(exact, "r") != rate_key(config, "r")


@pytest.mark.parametrize("asked", ["regional", "full"])
def test_the_dry_run_tells_how_much_of_a_job_is_compiled(tmp_path: Path, asked: str) -> None:
    sizes = [64, 64, 64, 128]
    write_rows(tmp_path / "in" / "a.parquet", {"prompt": ["a"] * 4, "width": sizes})
    given = [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}"]
    (line,) = [
        text
        for text in dry_run_lines([*given, f"engine.compile={asked}"])
        if text.startswith("compile ")
    ]
    assert line == (
        f"compile   {asked}, as engine.compile says; 75 % of the images are 64 x 64, the one size "
        "that is compiled"
    )


def test_the_dry_run_tells_what_compiling_costs_and_saves(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(3))
    given = [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}"]
    (line,) = [text for text in dry_run_lines(given) if text.startswith("compile ")]
    assert line == (
        "compile   off: no run of this model was measured here yet to tell whether it pays"
    )
    simulated = dry_run_lines([*given, "engine=simulated"])
    assert not [text for text in simulated if text.startswith("compile ")]


def test_the_job_is_sized_by_rows_like_the_first_ones(tmp_path: Path) -> None:
    from cluster.input_files import InputFiles
    from jobs.plan import make_plan
    from jobs.preview import make_preview
    from operators.row_defaults import row_defaults

    config = small_config(tmp_path)
    rows = {"width": [64, 64, 64, 128], "guidance_scale": [1.0] * 4, "steps": [10] * 4}
    write_rows(tmp_path / "input" / "a.parquet", {**prompts(4), **rows, "height": rows["width"]})
    preview = make_preview(
        make_plan(config, None).inputs,
        config.input.columns,
        row_defaults(config),
        InputFiles.of(config, None).open,
        most_rows=1,
    )
    size = JobSize.of(preview, config, rows=8, workers=2)
    assert size == JobSize(pixel_steps=2 * 10 * (3 * 64**2 + 128**2), usual=0.75, workers=2)


def progress(engine: EngineInfo | None) -> WorkerProgress:
    return WorkerProgress(
        phase="running",
        holding={},
        made=0,
        occupied=0,
        offered=0,
        lifetime_ns=0,
        engine=engine,
    )


def test_each_kind_of_engine_is_said_once_with_its_precision(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(iter(range(3)), total=3, lease_s=60)
    news = EngineNews(told(config, compile="full"))
    with caplog.at_level(logging.INFO):
        news.show(coordinator.snapshot())
        coordinator.beat("w0", progress(None))
        coordinator.beat("w1", progress(engine_of("full", 44.0)))
        coordinator.beat("w2", progress(engine_of("full", 45.0)))
        coordinator.beat("w3", progress(engine_of("full", 3.0)))
        coordinator.gone("w2", crashed=False)
        for _ in range(2):
            news.show(coordinator.snapshot())
    assert coordinator.snapshot().engines == (engine_of("full", 45.0),)
    assert [record.getMessage() for record in caplog.records] == [
        "engine: stepwise on cpu, float32, batches of up to 8, compiled (full) in 45 s"
    ]


def test_workers_that_cannot_compile_are_told_of_once(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(iter(range(1)), total=1, lease_s=60)
    coordinator.beat("w0", progress(engine_of("off", 2.0)))
    with caplog.at_level(logging.WARNING):
        news = EngineNews(told(config, compile="regional"))
        for _ in range(2):
            news.show(coordinator.snapshot())
        EngineNews(told(config, compile="off")).show(coordinator.snapshot())
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("engine.compile=regional: the denoiser cannot be compiled on cpu")
    assert "runs uncompiled; the worker's log says why" in warning


def test_an_engine_that_compiles_nothing_is_not_expected_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "a"}])
    job = replace(small.job, config=told(small.config, name="pipeline", compile="auto"))
    decided = _decided(job, small.store, small.plan, 1)
    assert decided.engine.compile == "off"
    coordinator = Coordinator(iter([0]), total=1, lease_s=60)
    coordinator.beat("w0", progress(engine_of("off")))
    caplog.clear()
    with caplog.at_level(logging.INFO, "imagemill"):
        EngineNews(decided).show(coordinator.snapshot())
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_workers_of_different_precision_are_told_of_once(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(iter(range(1)), total=1, lease_s=60)
    gpu = replace(engine_of("off"), device="NVIDIA L4", precision="bfloat16")
    news = EngineNews(told(config, compile="off"))
    with caplog.at_level(logging.WARNING, "imagemill"):
        for name, engine in (("w0", engine_of("off")), ("w1", replace(gpu, precision="float32"))):
            coordinator.beat(name, progress(engine))
            news.show(coordinator.snapshot())
        assert caplog.messages == []
        for _ in range(2):
            coordinator.beat("w2", progress(gpu))
            news.show(coordinator.snapshot())
    (warning,) = caplog.messages
    assert "different precisions (float32 on cpu, bfloat16 on NVIDIA L4)" in warning
    assert "start jobs with one engine.precision" in warning
