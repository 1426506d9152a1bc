"""Compiled denoisers: nothing is compiled after loading, and the pictures stay the same.

Most tests compile with a backend that only counts: what it returns is the captured code itself.
"""

from __future__ import annotations

import logging
import os

import pytest
import torch
import torch._inductor.config
from torch._dynamo.utils import counters

from operators import compile_cache
from operators.compiled import CompiledFamily, batch_sizes, compile_family
from operators.families import load_family
from operators.model_files import describe_model
from operators.model_options import denoiser_of
from tests.stepwise_rows import ask, difference, load, new_engine, run
from tests.tiny_model import SIZE, build_tiny_stable_diffusion
from tests.tiny_pixart import build_tiny_pixart

PIXELS = (SIZE, SIZE)


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
    rows = [*mixed_rows(15), ask(99, width=2 * SIZE, steps=2)]
    made = run(new_engine(ready.family, max_batch=4), rows)
    assert compiler.compiled == after_loading
    assert counters["stats"] == stats
    assert len(compiler.runs) > warmed_up
    plain = run(new_engine(family_of(model_path), max_batch=4), rows)
    assert all(difference(made[n].pixels, plain[n].pixels) <= 1 for n in plain)


def test_each_size_is_one_graph_of_the_whole_denoiser(model_path):
    compiler = CountingCompiler()
    compiled(model_path, "full", sizes=(8, 4), backend=compiler)
    assert compiler.compiled == 2


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


def test_full_batches_with_and_without_guidance_are_compiled():
    assert batch_sizes(8, guided=True) == (16, 8)
    assert batch_sizes(8, guided=False) == (8,)


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


def test_without_a_cpp_compiler_the_engine_says_so_and_runs(model_path, monkeypatch, caplog):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with caplog.at_level(logging.WARNING):
        engine = load(model_path, compile="full", max_batch=1)
    assert engine.info.compile == "off"
    assert "cannot be compiled here and runs uncompiled: " in caplog.text
    assert "No working C++ compiler" in caplog.text
    assert run(engine, [ask(0)])[0].pixels.shape == (SIZE, SIZE, 3)


def test_an_engine_compiled_by_torch_makes_the_same_pictures_and_keeps_its_code(
    model_path, tmp_path
):
    engine = load(model_path, compile="regional", max_batch=2)
    assert engine.info.compile == "regional"
    assert engine.info.compile_seconds > 0
    assert list((tmp_path / "cache" / "imagemill" / "compiled").rglob("*.py"))
    rows = [ask(0), ask(1, guidance_scale=1.0), ask(2, sampler="dpmpp_2m")]
    made, plain = run(engine, rows), run(load(model_path, max_batch=2), rows)
    assert all(difference(made[n].pixels, plain[n].pixels) <= 1 for n in plain)


def test_auto_leaves_the_decision_to_the_driver(model_path):
    engine = load(model_path, compile="auto")
    assert (engine.info.compile, engine.info.compile_seconds) == ("off", 0.0)
    assert denoiser_of(engine._family)._compiled_call_impl is None


def test_the_users_own_cache_folder_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere/else")
    compile_cache.use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/somewhere/else"
    assert not (tmp_path / "cache").exists()


def test_a_cache_folder_that_cannot_be_written_costs_only_the_cache(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        compile_cache.use_compile_cache()
    assert not os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert "compiled code is not kept for the next run" in caplog.text
