"""Compiled denoisers: nothing is compiled after loading, and the pictures stay the same.

Most tests compile with a backend that only counts: what it returns is the captured code itself.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

import conf
from operators import compile_cache
from operators.compiled import CompiledFamily, batch_sizes, compile_family
from operators.device import device_for
from operators.families import load_family
from operators.measured_sizes import measured_sizes, remembered_slots
from operators.model_files import describe_model
from operators.model_options import denoiser_of
from tests.engine_config import engine_config
from tests.stepwise_rows import ask, difference, load, load_info, new_engine, run
from tests.tiny_flux import build_tiny_flux
from tests.tiny_model import SIZE, build_tiny_stable_diffusion
from tests.tiny_pixart import build_tiny_pixart

PIXELS = (SIZE, SIZE)
ENGINE = engine_config("stepwise")
ROOT = Path(conf.__path__[0]).parent
pytestmark = pytest.mark.filterwarnings(
    # torch's own, of its own compiler
    "ignore:`torch.jit:DeprecationWarning"
)


class CountingCompiler:
    """A backend of torch.compile that knows how much it compiled and how often that ran."""

    def __init__(self):
        self.compiled = 0
        self.runs = []

    def __call__(self, graph, inputs):
        self.compiled += 1

        def counted(*given):
            self.runs.append(len(given))
            return graph(*given)

        return counted


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Nothing is kept where a user keeps it, and nothing compiled is shared between tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def family_of(path):
    return load_family(describe_model(str(path)), dtype=torch.float32, device=torch.device("cpu"))


def compiled(path, how="full", *, sizes=(8, 4), backend):
    return compile_family(family_of(path), how, sizes=sizes, pixels=PIXELS, backend=backend)


def mixed_rows(count):
    """Rows with and without guidance, of several lengths: batches of every size from 1 to 8."""
    return [
        ask(
            number,
            steps=1 + number % 5,
            guidance_scale=(4.0, 1.0, 7.5)[number % 3],
            sampler=("ddim", "euler", "dpmpp_2m")[number % 3],
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("how", ["full", "regional"])
def test_nothing_is_compiled_after_loading(model_path, how):
    compiler = CountingCompiler()
    ready = compiled(model_path, how, backend=compiler)
    assert ready.how == how
    assert ready.seconds > 0
    after_loading, stats = compiler.compiled, dict(counters["stats"])
    warmed_up = len(compiler.runs)
    assert after_loading > 0
    rows = [*mixed_rows(9), ask(99, width=2 * SIZE, steps=2)]
    with ThreadPoolExecutor(1) as workers_engine_thread:
        engine = new_engine(ready.family, max_batch=4)
        made = workers_engine_thread.submit(run, engine, rows).result()
    assert compiler.compiled == after_loading
    assert counters["stats"] == stats
    assert len(compiler.runs) > warmed_up
    plain = run(new_engine(family_of(model_path), max_batch=4), rows)
    assert all(difference(made[n].pixels, plain[n].pixels) <= 1 for n in plain)


def test_each_size_is_one_graph_of_the_whole_denoiser(model_path):
    compiler = CountingCompiler()
    compiled(model_path, "full", sizes=(8, 4), backend=compiler)
    assert compiler.compiled == 2


def test_a_model_that_is_told_its_guidance_is_compiled_with_it(tmp_path):
    compiler = CountingCompiler()
    path = build_tiny_flux(tmp_path)
    ready = compiled(path, "regional", sizes=(4,), backend=compiler)
    assert ready.how == "regional"
    after_loading, warmed_up = compiler.compiled, len(compiler.runs)
    rows = [ask(n, sampler="flow_match_euler", guidance_scale=1.0 + n, steps=2) for n in range(4)]
    made = run(new_engine(ready.family, max_batch=4), rows)
    assert compiler.compiled == after_loading
    assert len(compiler.runs) > warmed_up
    plain = run(new_engine(family_of(path), max_batch=4), rows)
    assert all(difference(made[n].pixels, plain[n].pixels) <= 1 for n in plain)


def test_a_model_without_named_blocks_is_compiled_as_a_whole(tmp_path):
    compiler = CountingCompiler()
    ready = compiled(build_tiny_pixart(tmp_path), "regional", sizes=(2,), backend=compiler)
    assert ready.how == "full"
    assert compiler.compiled > 0


@pytest.mark.parametrize(
    ("rows", "expected"), [(8, 8), (6, 8), (5, None), (4, 4), (3, 4), (2, None), (9, None)]
)
def test_a_batch_is_filled_up_only_where_that_costs_less_than_it_gains(model_path, rows, expected):
    seen = []

    class Seeing:
        def predict(self, latents, timesteps, conditioning, size):
            seen.append((len(latents), len(timesteps), len(conditioning["embeddings"])))
            return latents

    family = CompiledFamily(Seeing(), (8, 4), (4, 2, 2))
    latents = torch.randn(rows, 4, 2, 2)
    answer = family.predict(latents, torch.ones(rows), {"embeddings": latents}, PIXELS)
    assert torch.equal(answer, latents)
    assert seen == [(expected or rows,) * 3]


class Echo:
    def predict(self, latents, timesteps, conditioning, size):
        return latents


@pytest.mark.parametrize(("compiled", "warnings"), [(99, 1), (100, 0)])
def test_code_that_is_compiled_for_little_is_told_of_once(caplog, compiled, warnings):
    family = CompiledFamily(Echo(), (8, 4), (4, 2, 2))
    with caplog.at_level(logging.WARNING):
        for rows in [4] * compiled + [1] * (200 - compiled) + [4, 1]:
            family.predict(torch.zeros(rows, 4, 2, 2), torch.ones(rows), {}, PIXELS)
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == warnings
    assert all("101 of 200 calls of the denoiser ran uncompiled" in one for one in found)
    assert all("batches of 4 and 8 at the model's own" in one for one in found)


def test_full_batches_with_and_without_guidance_are_compiled():
    assert batch_sizes(8, passes=2) == (16, 8)
    assert batch_sizes(8, passes=1) == (8,)


def broken_compiler(graph, inputs):
    raise RuntimeError("no room\nfor compilers")


def test_a_compiler_that_fails_costs_one_warning(model_path, caplog):
    with caplog.at_level(logging.WARNING):
        ready = compiled(model_path, backend=broken_compiler)
    assert ready.how == "off"
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("the denoiser cannot be compiled here and runs uncompiled: ")
    assert "no room for compilers" in warning
    assert "\n" not in warning
    rows = mixed_rows(3)
    made = run(new_engine(ready.family), rows)
    plain = run(new_engine(family_of(model_path)), rows)
    assert all(difference(made[n].pixels, plain[n].pixels) == 0 for n in plain)


WITHOUT_COMPILER = """
import logging, sys
from tests.stepwise_rows import ask, load, run
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
engine = load(sys.argv[1], compile="regional", max_batch=1)
print(engine.info.compile, run(engine, [ask(0, steps=1)])[0].pixels.shape)
"""


def test_a_machine_without_a_cpp_compiler_says_so_and_makes_pictures(model_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(model_path)],
        env=os.environ | {"CXX": "no-such-compiler", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    warning, made = [line for line in done.stdout.splitlines() if line]
    assert warning.startswith("the denoiser cannot be compiled here and runs uncompiled: ")
    assert "No working C++ compiler" in warning
    assert made == f"off {(SIZE, SIZE, 3)}"


def test_torchs_own_compiler_makes_the_same_pictures_and_its_code_is_kept(model_path, tmp_path):
    ready = compiled(model_path, "regional", sizes=(4,), backend="inductor")
    assert ready.how == "regional"
    assert list((tmp_path / "cache" / "imagemill" / "compiled").rglob("*.py"))
    rows = [ask(0), ask(1, guidance_scale=1.0), ask(2, sampler="dpmpp_2m")]
    made = run(new_engine(ready.family, max_batch=2), rows)
    plain = run(new_engine(family_of(model_path), max_batch=2), rows)
    assert all(difference(made[n].pixels, plain[n].pixels) <= 1 for n in plain)


def test_a_compiled_size_is_what_another_run_found_best_and_stays(tmp_path):
    info = dataclasses.replace(load_info(), max_batch=8)
    device = device_for(torch.device("cpu"))
    assert remembered_slots(info, ENGINE, PIXELS) is None
    sizes = measured_sizes(info, ENGINE, device, fixed={PIXELS: 3})
    assert sizes.slots(PIXELS) == 3
    sizes.observe(PIXELS, rows=3, passes=6, spent_ns=1)
    assert remembered_slots(info, ENGINE, PIXELS) is None
    search = measured_sizes(info, ENGINE, device, fixed={})
    for rows in (4, 8):
        for _ in range(4):
            search.observe(PIXELS, rows=rows, passes=rows, spent_ns=rows)
    assert remembered_slots(info, ENGINE, PIXELS) == search.slots(PIXELS) == 4


@pytest.mark.parametrize("option", [{"offload": "group"}, {"attention": "flash"}])
def test_a_size_is_remembered_for_the_options_that_it_was_found_with(option):
    info = dataclasses.replace(load_info(), max_batch=8)
    device, other = device_for(torch.device("cpu")), dataclasses.replace(ENGINE, **option)
    measured_sizes(info, ENGINE, device, fixed={}).too_many(PIXELS, rows=4)
    assert remembered_slots(info, ENGINE, PIXELS) == 2
    assert remembered_slots(info, other, PIXELS) is None


def test_auto_leaves_the_decision_to_the_driver(model_path):
    engine = load(model_path, compile="auto")
    assert (engine.info.compile, engine.info.compile_seconds) == ("off", 0.0)
    assert denoiser_of(engine._family)._compiled_call_impl is None


def test_the_users_own_cache_folder_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere/else")
    compile_cache.use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/somewhere/else"


def test_what_torch_has_set_itself_is_nobodys_wish(monkeypatch, tmp_path):
    """A process of its own, since importing torch's compiler is what sets it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    script = (
        "import os, torch._dynamo.package\n"
        "assert os.environ['TORCHINDUCTOR_CACHE_DIR'], 'torch does not set it any more'\n"
        "from operators.compile_cache import use_compile_cache\n"
        "use_compile_cache()\n"
        "print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == str(tmp_path / "imagemill" / "compiled")
    assert not (tmp_path / "cache").exists()


def test_a_cache_folder_that_cannot_be_written_costs_only_the_cache(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        compile_cache.use_compile_cache()
    assert not os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert "compiled code is not kept for the next run" in caplog.text
