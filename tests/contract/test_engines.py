"""One suite over every engine: what a worker may rely on."""

from __future__ import annotations

import dataclasses
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.schema import ModelConfig
from jobs.configure import compose
from jobs.triton_export import export
from operators.engine import ImageFailure, ImageResult
from operators.engines import load_engine
from operators.engines.triton import load as load_triton
from operators.request import Request
from operators.sampler_names import samplers_for
from tests.engine_config import engine_config
from tests.tiny_model import SIZE, build_tiny_stable_diffusion
from tests.tiny_others import build_tiny_latent_diffusion
from tests.triton_server import TritonServer

STEPPING = ("simulated", "stepwise")
"""Engines whose tick is a step; a tick of the others is a whole image."""
SERVED = ("triton:dynamic", "triton:continuous")
ENGINES = (*STEPPING, "pipeline", "pipeline:clipped", *SERVED)
CONFIG = engine_config("simulated", max_batch=3, simulated_seconds={1: 1e-5, 4: 2e-5})
MODEL = ModelConfig(
    name="tiny",
    path="nowhere",
    revision=None,
    config=None,
    width=SIZE,
    height=SIZE,
    steps=5,
    guidance_scale=4.0,
    sampler="ddim",
    needs_gpu=False,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model for each engine: with an adapter, without one, and with a scheduler that clips."""
    folder = tmp_path_factory.mktemp("tiny")
    with_adapter = build_tiny_stable_diffusion(folder / "sd")
    clipped = build_tiny_stable_diffusion(folder / "clipped")
    scheduler = DDIMScheduler.from_pretrained(clipped, subfolder="scheduler")
    scheduler.register_to_config(thresholding=True)
    scheduler.save_pretrained(clipped / "scheduler")
    paths = {
        "simulated": "nowhere",
        "stepwise": with_adapter,
        "pipeline": build_tiny_latent_diffusion(folder / "ldm"),
        "pipeline:clipped": clipped,
    }
    return {name: dataclasses.replace(MODEL, path=str(path)) for name, path in paths.items()}


@pytest.fixture(scope="module")
def served(request, models, tmp_path_factory):
    """Makes engines that ask a real server for the model of the stepwise engine, by its mode."""
    request.getfixturevalue("triton")
    folder = tmp_path_factory.mktemp("triton")
    for name in SERVED:
        mode = name.partition(":")[2]
        keys = [f"triton.model={mode}", f"triton.mode={mode}", "triton.delay_ms=5"]
        exact = ["engine.max_batch=3", "engine.precision=float32"]
        size = [f"model.width={SIZE}", f"model.height={SIZE}", "model.sampler=ddim"]
        export(models["stepwise"].path, str(folder / "models"), [*keys, *exact, *size])
    with ExitStack() as closing:
        server = closing.enter_context(TritonServer(folder, folder / "models"))
        url = ["engine=triton", f"triton.url=grpc://{server.grpc}"]
        config = compose([*url, "input.path=none", "output.path=none"]).triton

        def new_engine(mode, **keys):
            model = models["stepwise"]
            # the image with which it begins is part of loading where the servers are our own
            served = dataclasses.replace(config, model=mode, owned=True, **keys)
            engine = load_triton(served, model, priority=0)
            closing.callback(engine.close)
            return engine

        yield new_engine


@pytest.fixture(scope="module")
def new_engine_of(request, models):
    """Makes empty engines by name; each model is loaded once."""
    loaded = {}

    def new_engine(name):
        if name in SERVED:
            return request.getfixturevalue("served")(name.partition(":")[2])
        config = dataclasses.replace(CONFIG, name=name.partition(":")[0])
        if name == "simulated":
            return load_engine(config, models[name])
        if name not in loaded:
            loaded[name] = load_engine(config, models[name])
        first = loaded[name]
        return type(first)(first._family if name == "stepwise" else first._model, first.info)

    return new_engine


@pytest.fixture(scope="module", params=ENGINES)
def new_engine(request, new_engine_of):
    """Makes empty engines of one kind."""
    return lambda: new_engine_of(request.param)


def ask(number, **options):
    asked = {
        "prompt": f"a fox {number}",
        "negative_prompt": "",
        "seed": number,
        "width": SIZE,
        "height": SIZE,
        "steps": 3,
        "guidance_scale": 4.0,
        "sampler": "ddim",
    }
    return Request(image_id=str(number), row_id=number, image_index=0, **(asked | options))


def drain(engine):
    outcomes = []
    while engine.busy:
        outcomes += engine.tick()
    return outcomes


def test_an_empty_engine_has_nothing_to_do(new_engine):
    engine = new_engine()
    assert not engine.busy
    assert engine.room == 18
    assert engine.tick() == []
    assert engine.stats.ticks == engine.stats.busy_ns == 0


def test_room_shrinks_by_what_is_admitted_and_grows_by_what_returns(new_engine):
    engine = new_engine()
    engine.admit([ask(n) for n in range(5)])
    assert engine.busy
    assert engine.room == 13
    assert engine.stats.active + engine.stats.waiting == 5
    returned = len(engine.tick())
    assert engine.stats.active + engine.stats.waiting == 5 - returned
    assert engine.room == 13 + returned
    assert len(drain(engine)) == 5 - returned
    assert engine.room == 18
    assert not engine.busy


@pytest.mark.parametrize("name", STEPPING)
def test_rows_keep_their_slots_from_step_to_step(new_engine_of, name):
    engine = new_engine_of(name)
    engine.admit([ask(n) for n in range(5)])
    assert engine.tick() == []
    assert (engine.stats.active, engine.stats.waiting) == (3, 2)


def test_admitting_more_than_there_is_room_for_loses_nothing(new_engine):
    engine = new_engine()
    engine.admit([ask(n, steps=1) for n in range(30)])
    assert engine.room == 0
    assert {outcome.request.row_id for outcome in drain(engine)} == set(range(30))


REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "sampler": st.sampled_from(samplers_for("noise")),
            "steps": st.sampled_from([1, 2, 5]),
            "guidance_scale": st.sampled_from([0.0, 1.0, 4.0]),
            "width": st.sampled_from([SIZE, 2 * SIZE]),
            "prompt": st.sampled_from(["a fox", "a dog", "🦊"]),
        }
    ),
    max_size=10,
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(options=REQUESTS, later=REQUESTS)
def test_each_request_returns_exactly_once_with_its_share(new_engine, options, later):
    engine = new_engine()
    requests = [ask(n, **option) for n, option in enumerate([*options, *later])]
    engine.admit(requests[: len(options)])
    outcomes = engine.tick()
    engine.admit(requests[len(options) :])
    outcomes += drain(engine)
    returned = [outcome.request for outcome in outcomes]
    assert sorted(returned, key=lambda r: r.row_id) == requests
    assert sum(outcome.device_ns for outcome in outcomes) == engine.stats.busy_ns
    for outcome in outcomes:
        assert isinstance(outcome, ImageResult), outcome
        assert outcome.pixels.dtype == np.uint8
        assert outcome.pixels.shape == (outcome.request.height, outcome.request.width, 3)
        assert 0 < outcome.started_at_ns <= outcome.finished_at_ns
    assert engine.stats.occupied <= engine.stats.offered == engine.stats.ticks * 3


def test_a_picture_is_the_same_alone_and_in_company(new_engine):
    row = ask(7, steps=4, sampler="euler_ancestral")
    (alone,) = run(new_engine(), [row])
    mixed = run(new_engine(), [*(ask(n, steps=n, sampler="unipc") for n in range(1, 6)), row])
    (again,) = [outcome for outcome in mixed if outcome.request == row]
    assert np.abs(alone.pixels.astype(int) - again.pixels.astype(int)).max() <= 1
    assert alone.pixels.std() > 0


def run(engine, requests):
    engine.admit(requests)
    return drain(engine)


def test_pictures_depend_on_prompt_and_seed(new_engine):
    rows = [ask(0), ask(1, prompt="a fox 0", seed=1), ask(2, prompt="other", seed=0)]
    made = run(new_engine(), rows)
    pixels = {outcome.pixels.tobytes() for outcome in made}
    assert len(pixels) == 3


def test_finishing_returns_each_request_at_most_once_and_makes_no_further_step(new_engine):
    engine = new_engine()
    engine.admit([ask(n, steps=1 + n) for n in range(4)])
    outcomes = engine.tick()
    ticks = engine.stats.ticks
    outcomes += engine.finish()
    assert engine.stats.ticks == ticks
    outcomes += drain(engine)
    assert sorted(outcome.request.row_id for outcome in outcomes) == [0, 1, 2, 3]


def test_discarded_requests_do_not_return(new_engine):
    engine = new_engine()
    engine.admit([ask(n) for n in range(6)])
    returned = {outcome.request.row_id for outcome in engine.tick()}
    engine.admit([ask(6), ask(7)])
    inside = set(range(8)) - returned
    unwanted = {0, 5, 7, 99}
    assert engine.discard(lambda request: request.row_id in unwanted) == len(inside & unwanted)
    assert engine.stats.active + engine.stats.waiting == len(inside - unwanted)
    assert {outcome.request.row_id for outcome in drain(engine)} == inside - unwanted
    engine.admit([ask(8)])
    assert engine.discard(lambda request: True) == 1
    assert not engine.busy


@pytest.mark.parametrize("name", [name for name in ENGINES if name not in SERVED])
def test_a_result_tells_how_many_rows_shared_its_ticks(new_engine_of, name):
    engine = new_engine_of(name)
    engine.admit([ask(number) for number in range(3)])
    assert [outcome.batch_rows for outcome in drain(engine)] == [3, 3, 3]
    engine.admit([ask(3)])
    assert [outcome.batch_rows for outcome in drain(engine)] == [1]


@pytest.mark.parametrize("name", STEPPING)
def test_rows_that_shared_some_of_its_steps_count_on_average(new_engine_of, name):
    engine = new_engine_of(name)
    engine.admit([ask(number, steps=steps) for number, steps in enumerate((2, 2, 6))])
    found = {outcome.request.row_id: outcome.batch_rows for outcome in drain(engine)}
    assert found == {0: 3, 1: 3, 2: round((2 * 3 + 4 * 1) / 6)}


def test_failures_are_not_results(new_engine):
    outcomes = run(new_engine(), [ask(0)])
    assert not any(isinstance(outcome, ImageFailure) for outcome in outcomes)


@pytest.mark.parametrize("name", SERVED)
def test_a_server_makes_the_pictures_of_the_engine_in_process(new_engine_of, name):
    # well-conditioned ones: others blow roundings up beyond 1/255 on a model of random numbers
    samplers = ("ddim", "euler", "dpmpp_2m_karras", "heun", "euler_ancestral", "flow_match_euler")
    rows = [
        ask(n, steps=1 + n, guidance_scale=float(n % 3), width=SIZE * (1 + n % 2), sampler=sampler)
        for n, sampler in enumerate(samplers)
    ]
    here = {outcome.request: outcome for outcome in run(new_engine_of("stepwise"), rows)}
    there = {outcome.request: outcome for outcome in run(new_engine_of(name), rows)}
    for row in rows:
        expected, found = here[row], there[row]
        if isinstance(expected, ImageFailure):
            assert (found.stage, found.reason) == (expected.stage, expected.reason)
            continue
        assert np.abs(found.pixels.astype(int) - expected.pixels.astype(int)).max() <= 1
        assert found.truncated_tokens == expected.truncated_tokens
    assert sum(isinstance(outcome, ImageFailure) for outcome in there.values()) == 1


@pytest.mark.parametrize("name", SERVED)
def test_a_picture_is_the_same_to_the_bit_by_shared_memory_and_by_grpc(served, name):
    rows = [ask(n, steps=1 + n, width=SIZE * (1 + n % 2)) for n in range(4)]
    made = []
    for way in ("auto", "off"):
        # one at a time: a batch's size alone may change a rounding
        engine = served(name.partition(":")[2], shared_memory=way, max_in_flight=1)
        made.append({outcome.request: outcome.pixels for outcome in run(engine, rows)})
    for row in rows:
        assert (made[0][row] == made[1][row]).all()


@pytest.mark.parametrize("name", STEPPING)
def test_empty_slots_have_a_reason(new_engine_of, name):
    engine = new_engine_of(name)
    engine.admit([ask(0, steps=2), ask(1, steps=2, width=2 * SIZE)])
    engine.tick(more_to_come=True)
    engine.tick(more_to_come=True)
    stats = engine.stats
    assert (stats.offered - stats.occupied, stats.other_shapes, stats.starved) == (4, 4, 0)
    engine.tick(more_to_come=True)
    assert engine.stats.starved == 2
    drain(engine)
    stats = engine.stats
    assert (stats.offered - stats.occupied, stats.other_shapes, stats.starved) == (8, 4, 2)


def test_another_thread_may_ask_how_far_it_is_while_it_works(new_engine):
    engine = new_engine()
    asked, over = [], threading.Event()

    def ask_often():
        while not over.is_set():
            asked.append(engine.stats)

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_often)
        try:
            for number in range(60):
                wide = (1 + number % 3) * SIZE
                engine.admit([ask(number, steps=1, width=wide, guidance_scale=float(number % 2))])
                engine.tick()
            drain(engine)
        finally:
            over.set()
            sys.setswitchinterval(switch_s)
        asking.result()
    assert asked[-1].ticks > 0
