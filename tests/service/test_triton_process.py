"""The tritonserver that other tests rely on: how it ends, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from jobs.triton_export import export
from operators.request import Request
from tests.triton_asking import Reply, ask, ask_stream
from tests.triton_server import TritonServer

MODEL = "shapes"
PATIENCE_S = 60.0
_DIES = """
import os, sys
from pathlib import Path
from tests.triton_server import TritonPorts, TritonServer
http, grpc, metrics = map(int, sys.argv[3:])
ports = TritonPorts(http=http, grpc=grpc, metrics=metrics)
server = TritonServer(Path(sys.argv[1]), Path(sys.argv[2]), ports=ports).start()
print(server.pid, *server.stubs(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def repository(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that needs no torch, and so is soon there; a step of one row takes 56 ms."""
    folder = tmp_path_factory.mktemp("repository")
    export(MODEL, str(folder), ["engine=simulated", "triton.mode=continuous"])
    return folder


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    with TritonServer(tmp_path, repository, explicit=[MODEL]) as running:
        yield running


def small(steps: int) -> Request:
    return Request(
        image_id="0",
        row_id=0,
        image_index=0,
        prompt="a red circle",
        negative_prompt="",
        seed=0,
        width=64,
        height=64,
        steps=steps,
        guidance_scale=1.0,
        sampler="ddim",
    )


def ask_once(server: TritonServer, *, steps: int = 1) -> Reply:
    async def conversation() -> Reply:
        async with InferenceServerClient(server.grpc) as client:
            return await ask_stream(client, MODEL, small(steps))

    return asyncio.run(conversation())


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_stop_answers_what_is_under_way_and_leaves_nothing(server: TritonServer) -> None:
    async def conversation() -> Reply:
        async with InferenceServerClient(server.grpc) as client:
            long = asyncio.create_task(ask_stream(client, MODEL, small(40)))
            while (await ask_stream(client, MODEL, small(1))).batch_rows < 2:
                assert not long.done()
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            reply = await long
            stopping.join()
            return reply

    stub = psutil.Process(server.stubs()[0])
    assert server.shared_memory()
    reply = asyncio.run(conversation())
    assert reply.pixels.shape == (64, 64, 3)
    assert server.pid is None
    assert not stub.is_running()
    assert not server.shared_memory()
    assert "error: creating server" not in server.log.read_text()


def test_killed_it_leaves_nothing_and_comes_back_on_the_same_ports(server: TritonServer) -> None:
    before = ask_once(server)
    stub, ports = psutil.Process(server.stubs()[0]), server.ports
    server.restart()
    assert not stub.is_running()
    assert server.ports == ports
    assert (ask_once(server).pixels == before.pixels).all()
    server.kill()
    assert not server.shared_memory()


def test_a_killed_stub_fails_requests_until_its_model_is_loaded_anew(server: TritonServer) -> None:
    assert len(server.kill_stubs()) == 1
    wait_until(lambda: not server.stubs())
    with pytest.raises(InferenceServerException, match=r"Stub process .* is not healthy"):
        ask_once(server)

    async def reload() -> bool:
        async with InferenceServerClient(server.grpc) as client:
            ready = await client.is_model_ready(MODEL)
            # a load alone does nothing: the files are the same
            await client.unload_model(MODEL)
            await client.load_model(MODEL)
            return bool(ready)

    assert asyncio.run(reload())
    assert ask_once(server).pixels.shape == (64, 64, 3)


def test_a_stop_with_a_dead_stub_leaves_nothing(server: TritonServer) -> None:
    assert len(server.kill_stubs()) == 1
    wait_until(lambda: not server.stubs())
    server.stop()
    assert server.pid is None
    assert not server.shared_memory()


def test_a_frozen_server_answers_when_it_goes_on(server: TritonServer) -> None:
    async def conversation() -> Reply:
        async with InferenceServerClient(server.grpc) as client:
            await client.is_server_ready()
            server.pause()
            asked = asyncio.create_task(ask_stream(client, MODEL, small(1)))
            done, _ = await asyncio.wait([asked], timeout=0.5)
            assert not done
            server.go_on()
            return await asked

    assert asyncio.run(conversation()).batch_rows == 1


def test_a_continuous_model_takes_streams_only(server: TritonServer) -> None:
    async def conversation() -> None:
        async with InferenceServerClient(server.grpc) as client:
            await ask(client, MODEL, small(1))

    with pytest.raises(InferenceServerException, match="decoupled"):
        asyncio.run(conversation())


def test_the_server_and_its_stubs_die_with_a_killed_parent(
    repository: Path, tmp_path: Path
) -> None:
    server = TritonServer(tmp_path, repository)
    ports = (server.ports.http, server.ports.grpc, server.ports.metrics)
    done = subprocess.run(
        [sys.executable, "-c", _DIES, str(tmp_path), str(repository), *map(str, ports)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        wait_until(lambda pid=pid: not psutil.pid_exists(pid))
    server.clean()
    assert not server.shared_memory()


def test_shared_memory_that_nobody_maps_goes_when_the_next_server_starts(
    repository: Path, tmp_path: Path
) -> None:
    left, young = (Path(f"/dev/shm/triton_imagemill_{one}_{tmp_path.name}") for one in (1, 2))
    try:
        for file in (left, young):
            file.write_bytes(b"left by a server")
        os.utime(left, (0, 0))
        with TritonServer(tmp_path, repository) as server:
            (used,) = server.shared_memory()
            os.utime(used, (0, 0))
            TritonServer(tmp_path, repository).clean()
            assert used.exists()
        assert not left.exists()
        assert young.exists()
    finally:
        left.unlink(missing_ok=True)
        young.unlink(missing_ok=True)


def test_a_stub_that_outlives_its_server_is_ended_when_the_next_server_starts(
    server: TritonServer,
) -> None:
    (stub,) = map(psutil.Process, server.stubs())
    stub.suspend()  # or it would see by itself that its server is gone
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: stub.ppid() != server.pid)
    server.clean()
    assert stub.wait(PATIENCE_S) is None
    assert not stub.is_running()


def test_a_model_that_cannot_load_is_told_with_the_end_of_the_log(
    repository: Path, tmp_path: Path
) -> None:
    export(MODEL, str(tmp_path / "wrong"), ["engine=simulated"])
    settings = tmp_path / "wrong" / MODEL / "1" / "settings.json"
    settings.write_text(settings.read_text().replace('"schema": 1', '"schema": 99'))
    server = TritonServer(tmp_path, tmp_path / "wrong")
    with pytest.raises(RuntimeError, match=r"has schema 99; expected 1\. Export the model again"):
        server.start()
    assert server.pid is None
    assert not server.shared_memory()
