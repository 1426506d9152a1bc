"""Exported models in a real tritonserver: the same pictures, shared batches, rows apart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from jobs.configure import compose
from jobs.triton_export import export
from operators.engine import ImageResult
from operators.engines import load_engine
from operators.request import Request
from operators.triton_signature import (
    FAILURE,
    INPUTS,
    MODEL_PARAMETER,
    OUTPUTS,
    REVISION_PARAMETER,
    VERSION,
    VERSION_PARAMETER,
)
from tests import triton_environment
from tests.stepwise_rows import difference, run
from tests.triton_asking import Reply, ask, ask_stream, inputs
from tests.triton_server import TritonServer

DYNAMIC, CONTINUOUS = "shapes", "shapes_continuous"
MODES = {DYNAMIC: ask, CONTINUOUS: ask_stream}
BATCH = 4
EXACT = ("engine.precision=float32", f"engine.max_batch={BATCH}")
LONG = 1000
PATIENCE_S = 60.0
SAMPLERS = ("ddim", "euler", "dpmpp_2m_karras", "heun", "euler_ancestral", "unipc")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes model twice. Triton waits long for a batch to fill: whether it does is no matter
    of how busy this machine is."""
    folder = tmp_path_factory.mktemp("repository")
    export("shapes", str(folder), [*EXACT, "triton.delay_ms=3000"])
    export("shapes", str(folder), [*EXACT, f"triton.model={CONTINUOUS}", "triton.mode=continuous"])
    return folder


@pytest.fixture(scope="module")
def server(
    triton: None, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    with TritonServer(tmp_path_factory.mktemp("server"), repository) as running:
        yield running


def shape(number: int, **options: Any) -> Request:
    asked = {
        "prompt": ("a red circle", "a blue square on green", "two triangles")[number % 3],
        "negative_prompt": "",
        "seed": number,
        "width": 64,
        "height": 64,
        "steps": 4,
        "guidance_scale": 2.0,
        "sampler": "ddim",
    }
    return Request(image_id=str(number), row_id=number, image_index=0, **(asked | options))


def mixed() -> list[Request]:
    """Rows that differ in all that they can; four of them are of another size."""
    return [
        shape(
            number,
            sampler=SAMPLERS[number % len(SAMPLERS)],
            steps=2 + number % 5,
            guidance_scale=(2.0, 0.0, 1.0, 7.5)[number % 4],
            negative_prompt=("", "blue")[number % 2],
            prompt=("a red circle", "ein grünes Dreieck 🦊", "a very long text " * 20)[number % 3],
            width=64 + 32 * (number % 3 == 2),
            seed=2**63 - 1 - number,
        )
        for number in range(12)
    ]


def talk(
    server: TritonServer, conversation: Callable[[InferenceServerClient], Coroutine[Any, Any, Any]]
) -> Any:
    async def with_client() -> Any:
        async with InferenceServerClient(server.grpc) as client:
            return await conversation(client)

    return asyncio.run(with_client())


async def outcome(asked: Awaitable[Reply]) -> Reply | str:
    try:
        return await asked
    except InferenceServerException as error:
        return str(error.message())


def together(server: TritonServer, model: str, requests: list[Request]) -> list[Reply | str]:
    """What came of requests that were asked at the same time."""

    async def conversation(client: InferenceServerClient) -> list[Reply | str]:
        asked = [outcome(MODES[model](client, model, request)) for request in requests]
        return await asyncio.gather(*asked)

    found: list[Reply | str] = talk(server, conversation)
    return found


@pytest.fixture(scope="module")
def in_process() -> dict[int, ImageResult]:
    config = compose(["model=shapes", *EXACT, "input.path=none", "output.path=none"])
    engine = load_engine(
        compose(["engine=stepwise", *EXACT, "input.path=none", "output.path=none"]).engine,
        config.model,
    )
    return run(engine, mixed())


@pytest.mark.parametrize("model", MODES)
def test_mixed_rows_become_the_pictures_of_the_engine_in_process(
    server: TritonServer, in_process: dict[int, ImageResult], model: str
) -> None:
    requests = mixed()
    for request, reply in zip(requests, together(server, model, requests), strict=True):
        expected = in_process[request.row_id]
        assert isinstance(reply, Reply), reply
        assert difference(reply.pixels, expected.pixels) <= 1
        assert reply.truncated_tokens == expected.truncated_tokens
        assert reply.gpu_seconds > 0
        assert 1 <= reply.batch_rows <= BATCH
    assert any(result.truncated_tokens for result in in_process.values())


def test_a_batch_that_triton_formed_shares_its_steps(server: TritonServer) -> None:
    samplers = ("ddim", "euler", "unipc", "dpmpp_2m")
    requests = [shape(n, sampler=samplers[n], guidance_scale=float(n)) for n in range(BATCH)]
    replies = together(server, DYNAMIC, requests)
    assert [reply.batch_rows for reply in replies if isinstance(reply, Reply)] == [BATCH] * BATCH


@pytest.mark.parametrize("model", MODES)
def test_a_row_that_fails_tells_why_and_costs_the_others_nothing(
    server: TritonServer, model: str
) -> None:
    unfit = shape(1, sampler="flow_match_euler")
    unsound = shape(2, width=65)
    sound, first, second, other = together(server, model, [shape(0), unfit, unsound, shape(3)])
    assert isinstance(sound, Reply)
    assert isinstance(other, Reply)
    assert isinstance(first, str)
    assert isinstance(second, str)
    failures = [json.loads(first), json.loads(second)]
    assert [tuple(failure) for failure in failures] == [FAILURE, FAILURE]
    assert [(one["stage"], one["reason"]) for one in failures] == [
        ("denoise", "sampler_unfit"),
        ("read", "bad_size"),
    ]
    assert "expected a positive multiple of 8 pixels" in failures[1]["message"]
    assert failures[0]["gpu_seconds"] > 0
    assert failures[1]["gpu_seconds"] == 0


def test_a_request_of_two_rows_is_told_to_be_two_requests(server: TritonServer) -> None:
    async def conversation(client: InferenceServerClient) -> str:
        two = {name: [getattr(shape(0), name)] * 2 for name in INPUTS}
        with pytest.raises(InferenceServerException) as caught:
            await client.infer(DYNAMIC, inputs(shape(0), **two))
        return str(caught.value.message())

    failure = json.loads(talk(server, conversation))
    assert failure["reason"] == "many_rows"
    assert failure["message"] == ("the request holds 2 rows in 'prompt'; expected 1 row a request")


def test_text_that_is_none_is_refused(server: TritonServer) -> None:
    async def conversation(client: InferenceServerClient) -> str:
        with pytest.raises(InferenceServerException) as caught:
            await client.infer(DYNAMIC, inputs(shape(0), prompt=b"\xff"))
        return str(caught.value.message())

    failure = json.loads(talk(server, conversation))
    assert failure["reason"] == "bad_prompt"
    assert "prompt is not UTF-8" in failure["message"]


def test_later_requests_enter_a_running_batch_and_a_cancelled_one_leaves_it(
    server: TritonServer,
) -> None:
    async def conversation(client: InferenceServerClient) -> None:
        before = cancelled(server)
        long = asyncio.create_task(ask_stream(client, CONTINUOUS, shape(0, steps=LONG)))
        await _until(client, lambda reply: reply.batch_rows == 2)
        assert not long.done()
        long.cancel()
        await _until(client, lambda reply: reply.batch_rows == 1)
        assert cancelled(server) == before + 1

    talk(server, conversation)


def cancelled(server: TritonServer) -> int:
    """How many requests left the server's models before their images were made."""
    return server.log.read_text().count("a cancelled request left")


async def _until(client: InferenceServerClient, holds: Callable[[Reply], bool]) -> None:
    """Ask for short images until one is as wanted."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds(await ask_stream(client, CONTINUOUS, shape(1, steps=3))):
        assert time.monotonic() < deadline_s


def test_a_cancelled_batch_makes_room_for_the_next(server: TritonServer) -> None:
    async def conversation(client: InferenceServerClient) -> None:
        before = cancelled(server)
        asked = [shape(number, steps=LONG) for number in range(BATCH)]
        long = [asyncio.create_task(ask(client, DYNAMIC, request)) for request in asked]
        await _computing(server)
        for task in long:
            task.cancel()
        await asyncio.gather(*(ask(client, DYNAMIC, shape(n, steps=2)) for n in range(BATCH)))
        assert cancelled(server) == before + BATCH

    talk(server, conversation)


async def _computing(server: TritonServer) -> None:
    """Return as soon as a model of an idle server is at work."""
    stubs = [psutil.Process(pid) for pid in server.stubs()]
    idle_s = sum(stub.cpu_times().user for stub in stubs)
    deadline_s = time.monotonic() + PATIENCE_S
    while sum(stub.cpu_times().user for stub in stubs) < idle_s + 0.5:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("model", MODES)
def test_the_server_tells_signature_mode_and_revision(server: TritonServer, model: str) -> None:
    async def conversation(client: InferenceServerClient) -> Any:
        return (await client.get_model_config(model, as_json=True))["config"]

    config = talk(server, conversation)
    for kind, tensors in (("input", INPUTS), ("output", OUTPUTS)):
        found = {
            one["name"]: (
                one["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES"),
                tuple(map(int, one["dims"])),
            )
            for one in config[kind]
        }
        assert found == {name: (one.datatype, one.dims) for name, one in tensors.items()}
    told = {name: one["string_value"] for name, one in config["parameters"].items()}
    assert told[VERSION_PARAMETER] == VERSION
    assert told[MODEL_PARAMETER] == "shapes"
    assert len(told[REVISION_PARAMETER]) == 16
    assert config.get("model_transaction_policy", {}) == (
        {"decoupled": True} if model == CONTINUOUS else {}
    )


_IMPORTS_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import numpy, conf, operators
assert numpy.__version__.startswith("1.26."), numpy.__version__
names = [
    one.name
    for package in (conf, operators)
    for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if one.name != "operators.triton.repository_model"
]
for name in names:
    importlib.import_module(name)
absent = [name for name in ("pyarrow", "ray", "hydra", "pandas") if importlib.util.find_spec(name)]
assert not absent, absent
print(len(names))
"""


def test_the_code_in_a_repository_needs_numpy_1_and_none_of_our_heavy_packages(
    triton: None, repository: Path
) -> None:
    done = subprocess.run(
        [
            str(triton_environment.ENVIRONMENT / "bin" / "python"),
            "-c",
            _IMPORTS_ALL,
            str(repository / DYNAMIC / "1" / "imagemill"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=triton_environment.variables(),
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
