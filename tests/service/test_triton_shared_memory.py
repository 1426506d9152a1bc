"""Images that a real tritonserver writes into memory of ours: which they are, and what stays."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from conf.triton_config import ServerAddress
from operators.engine import ImageResult
from operators.engines.triton import TritonEngine
from operators.triton_client import memory_owner
from operators.triton_client.access import Access
from operators.triton_client.client import TritonClient
from operators.triton_client.endpoints import Endpoint
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.inspection import inspect
from operators.triton_client.server import Server
from operators.triton_client.shared_memory import SharedMemory
from tests.cluster.job_process import JobProcess, wait_until, write_prompts
from tests.grpc_proxy import proxy_to
from tests.scripted_triton import SIZE, drain, engine_at_url, engines_closed, row, write_repository
from tests.triton_server import TritonServer

IMAGE = 3 * SIZE * SIZE
MODES = ("dynamic", "continuous")
_WORKER = """
import sys
from tests.scripted_triton import engine_at_url, row
engine = engine_at_url(sys.argv[1], model="dynamic")
engine.admit([row(0, f"until {sys.argv[2]}")])
while True:
    engine.tick()
"""


@pytest.fixture(scope="module")
def server(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    for mode in MODES:
        write_repository(folder / "models", name=mode, mode=mode)
    with TritonServer(folder, folder / "models") as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(server: TritonServer) -> Iterator[None]:
    yield
    assert server.regions() == []
    assert files() == []


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TritonEngine]]:
    """Makes engines that soon ask for another region, and that are closed after the test."""
    monkeypatch.setattr("operators.triton_client.shared_memory._REST_S", 0.2)
    with engines_closed() as make:
        yield make


def files() -> list[str]:
    return [file.name for file in memory_owner.FOLDER.glob("imagemill-*")]


def picture(number: int, width: int = SIZE) -> np.ndarray:
    """What the scripted model makes of a row."""
    random = np.random.default_rng(number)
    return random.integers(0, 256, (1, SIZE, width, 3), dtype=np.uint8)[0]


def check(engine: TritonEngine, count: int = 30) -> None:
    """Each row becomes its own picture, whatever its size."""
    rows = [dataclasses.replace(row(n), width=SIZE * (1 + n % 3)) for n in range(count)]
    engine.admit(rows)
    found = drain(engine)
    assert len(found) == count
    for outcome in found:
        assert isinstance(outcome, ImageResult), outcome
        asked = outcome.request
        assert (outcome.pixels == picture(asked.row_id, asked.width)).all()


@asynccontextmanager
async def asking(server: TritonServer, mode: str) -> AsyncIterator[Server]:
    """A server as a worker has it, without those who look after it."""
    access = Access(headers={}, root_certificates=None, private_key=None, certificate_chain=None)
    client = TritonClient(ServerAddress(target=server.grpc, tls=False), mode, access)
    one = Server(
        client=client,
        memory=SharedMemory(client, wanted=True),
        endpoint=Endpoint(name="it"),
        expected=await inspect(client),
        search=None,
    )
    try:
        yield one
    finally:
        await one.close()


@pytest.mark.parametrize("mode", MODES)
def test_images_come_where_no_message_could_carry_them_and_nothing_stays(
    server: TritonServer, mode: str
) -> None:
    with proxy_to(server.grpc, answer_bytes=IMAGE) as proxy:
        engine = engine_at_url(f"grpc://{proxy}", model=mode)
        assert len(server.regions()) == 1
        assert files() == [], "the name is gone as soon as the server has the region"
        check(engine)
        engine.close()
    assert server.regions() == []


@pytest.mark.parametrize("mode", MODES)
def test_switched_off_they_travel_by_grpc(
    server: TritonServer, engines: Callable[..., TritonEngine], mode: str
) -> None:
    engine = engines(server, model=mode, shared_memory="off")
    check(engine)
    assert server.regions() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_region_that_is_used_up_is_followed_by_another(
    server: TritonServer,
    engines: Callable[..., TritonEngine],
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("memory_region", "shared_memory"):
        monkeypatch.setattr(f"operators.triton_client.{module}.REGION_BYTES", 12 * IMAGE)
    engine = engines(server, model=mode)
    (first,) = server.regions()
    check(engine)
    wait_until(lambda: len(server.regions()) == 1, "the regions before are taken off")
    (last,) = server.regions()
    assert first != last


@pytest.mark.parametrize("given_up", ["cancelled", "timed out"])
@pytest.mark.parametrize("mode", MODES)
def test_an_image_written_after_its_request_was_given_up_spoils_no_other(
    server: TritonServer, tmp_path: Path, mode: str, given_up: str
) -> None:
    """In continuous mode it is written between another image and the end of that one's request."""
    gate, reached = tmp_path / "gate", tmp_path / "gate.reached"
    late, after = (
        (f"late {reached}", "after late") if mode == "continuous" else (f"until {gate}", "a fox")
    )

    async def conversation() -> None:
        async with asking(server, mode) as one:
            await one.ask(row(0), priority=0, timeout_s=30)
            file = os.dup(one.memory._region._file)  # type: ignore[union-attr]
            timeout_s = 1 if given_up == "timed out" else 30
            call = asyncio.create_task(one.ask(row(1, late), priority=0, timeout_s=timeout_s))
            while not reached.exists():
                await asyncio.sleep(0.01)
            (left,) = server.regions()
            if given_up == "cancelled":
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            else:
                with pytest.raises(ServerError) as refused:
                    await call
                assert refused.value.cause is Cause.TIMED_OUT
            gate.touch()
            answer = await one.ask(row(2, after), priority=0, timeout_s=30)
            assert (answer.pixels == picture(2)).all()
            while left in server.regions():
                await asyncio.sleep(0.01)
            assert picture(1).tobytes() in os.pread(file, 2**16, 0), "it was written"
            os.close(file)

    asyncio.run(asyncio.wait_for(conversation(), 60))


def test_a_server_that_is_killed_and_started_again_gets_another_region(
    server: TritonServer, engines: Callable[..., TritonEngine]
) -> None:
    engine = engines(server, model="dynamic")
    (before,) = server.regions()
    engine.admit([row(number, "wait 0.02") for number in range(40)])
    found = engine.tick()
    server.restart()
    found += drain(engine)
    assert len(found) == 40
    for outcome in found:
        assert isinstance(outcome, ImageResult), outcome
        assert (outcome.pixels == picture(outcome.request.row_id)).all()

    def shared_again() -> bool:
        check(engine, 3)
        return bool(server.regions())

    wait_until(shared_again, "a region of the new server")
    assert before not in server.regions()


def test_a_frozen_server_is_left_and_its_region_goes_when_it_is_back(
    server: TritonServer, engines: Callable[..., TritonEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operators.triton_client.shared_memory._CALL_S", 0.2)
    engine = engine_at_url(f"grpc://{server.grpc}", model="dynamic")
    (before,) = server.regions()
    server.pause()
    engine.close()
    assert files() == []
    server.go_on()
    check(engines(server, model="dynamic"), 3)
    wait_until(lambda: before not in server.regions(), "the next engine takes it off")


def test_what_a_killed_worker_left_on_the_server_the_next_one_takes_off(
    server: TritonServer, engines: Callable[..., TritonEngine], tmp_path: Path
) -> None:
    living = engines(server, model="continuous")
    (its,) = server.regions()
    gate = tmp_path / "gate"
    url = f"grpc://{server.grpc}"
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, url, str(gate)])
    wait_until(Path(f"{gate}.reached").exists, "the model works on its row")
    (left,) = set(server.regions()) - {its}
    worker.kill()
    worker.wait()
    assert files() == []
    assert left in server.regions()
    gate.touch()
    engines(server, model="dynamic")
    wait_until(lambda: left not in server.regions(), "the dead one's region is taken off")
    assert its in server.regions()
    check(living)


def test_a_server_that_does_not_see_our_memory_sends_its_images(
    server: TritonServer, engines: Callable[..., TritonEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as cleaning:
        elsewhere = memory_owner.FOLDER / f"of-a-test-{os.getpid()}"
        elsewhere.mkdir()
        cleaning.callback(elsewhere.rmdir)
        monkeypatch.setattr("operators.triton_client.memory_region.FOLDER", elsewhere)
        engine = engines(server, model="dynamic")
        check(engine)
        assert server.regions() == []


def test_a_job_that_is_interrupted_leaves_no_region(server: TritonServer, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": "wait 0.2"} for _ in range(200)]
    job = JobProcess(
        "run",
        "engine=triton",
        f"triton.url=grpc://{server.grpc}",
        "triton.model=dynamic",
        f"sampling.width={SIZE}",
        f"sampling.height={SIZE}",
        f"input.path={write_prompts(tmp_path / 'prompts.parquet', rows)}",
        f"output.path={tmp_path / 'out'}",
        "job.commit_seconds=0.1",
    )
    wait_until(lambda: bool(list(tmp_path.glob("out/commits/**/*.json"))), "a commit")
    assert len(server.regions()) == 1
    os.kill(job.pid, signal.SIGINT)
    assert job.finish() == 3, job.output
