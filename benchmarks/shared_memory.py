"""What an image's way from a tritonserver on this machine costs: by gRPC, and by shared memory.

    python -m benchmarks.shared_memory

The model of the real server returns an image that it has ready, so that nothing but the way is
measured. Both ways take turns, a few images at a time; of how long those took the fastest tenth is
told, which others on the machine disturbed least, and of CPU time the mean. Prints the table of
docs/triton.md.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from conf.triton_config import ServerAddress
from operators.triton_client.access import Access
from operators.triton_client.client import TritonClient
from operators.triton_client.endpoints import Endpoint
from operators.triton_client.inspection import inspect
from operators.triton_client.server import Server
from operators.triton_client.shared_memory import SharedMemory
from tests.scripted_triton import MODEL, row, write_repository
from tests.triton_environment import ensure
from tests.triton_server import TritonServer

_READY = """
import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, arguments):
        self._images = {}

    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        def value(name):
            return int(backend.get_input_tensor_by_name(request, name).as_numpy().item())

        shape = (1, value("height"), value("width"), 3)
        if shape not in self._images:
            random = np.random.default_rng(0)
            self._images[shape] = random.integers(0, 256, shape, dtype=np.uint8)
        outputs = {
            "image": self._images[shape],
            "gpu_seconds": np.zeros((1, 1)),
            "batch_rows": np.ones((1, 1), np.int32),
            "truncated_tokens": np.zeros((1, 1), np.int32),
            "revision": np.array([[b"r1"]], np.object_),
        }
        return backend.InferenceResponse([backend.Tensor(*one) for one in outputs.items()])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one image, in milliseconds. ``server``: CPU of the server and its model's process."""

    wall: float
    client: float
    server: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--at-a-time", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    ensure()
    with tempfile.TemporaryDirectory() as folder:
        repository = write_repository(Path(folder) / "models", delay_ms=0.0)
        (repository / MODEL / "1" / "model.py").write_text(_READY)
        with TritonServer(Path(folder), repository) as server:
            asyncio.run(_measure_all(server, options))


async def _measure_all(server: TritonServer, options: argparse.Namespace) -> None:
    print("| image | at a time | way | ms an image | client's CPU ms | server's CPU ms |")
    print("|---|---|---|---|---|---|")
    ways = {"gRPC": await _asked(server, shared=False), "shared memory": await _asked(server)}
    for size in options.sizes:
        for at_a_time in options.at_a_time:
            costs: dict[str, list[Cost]] = {name: [] for name in ways}
            for way in ways.values():
                await _measure(server, way, size, at_a_time, images=at_a_time)
            for _ in range(options.rounds):
                for name, way in ways.items():
                    costs[name].append(
                        await _measure(server, way, size, at_a_time, images=options.images)
                    )
            for name, found in costs.items():
                print(f"| {size}x{size} | {at_a_time} | {name} | {_shown(found)} |", flush=True)
    for way in ways.values():
        await way.close()


async def _asked(server: TritonServer, *, shared: bool = True) -> Server:
    """The server as a worker has it, without those who look after it."""
    access = Access(headers={}, root_certificates=None, private_key=None, certificate_chain=None)
    client = TritonClient(ServerAddress(target=server.grpc, tls=False), MODEL, access)
    return Server(
        client=client,
        memory=SharedMemory(client, wanted=shared),
        endpoint=Endpoint(name=server.grpc),
        expected=await inspect(client),
        search=None,
    )


async def _measure(
    server: TritonServer, way: Server, size: int, at_a_time: int, *, images: int
) -> Cost:
    request = replace(row(0), width=size, height=size)
    left = iter(range(images))

    async def ask() -> None:
        for _ in left:
            await way.ask(request, priority=0, timeout_s=60)

    wall, client, there = time.perf_counter(), time.process_time(), _cpu_s(server)
    await asyncio.gather(*(ask() for _ in range(at_a_time)))
    return Cost(
        wall=(time.perf_counter() - wall) / images * 1e3,
        client=(time.process_time() - client) / images * 1e3,
        server=(_cpu_s(server) - there) / images * 1e3,
    )


def _cpu_s(server: TritonServer) -> float:
    processes = [psutil.Process(pid) for pid in (server.pid, *server.stubs()) if pid]
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def _shown(costs: Sequence[Cost]) -> str:
    told = [
        statistics.quantiles([cost.wall for cost in costs], n=10)[0],
        statistics.mean(cost.client for cost in costs),
        statistics.mean(cost.server for cost in costs),
    ]
    return " | ".join(f"{one:.1f}" for one in told)


if __name__ == "__main__":
    main()
