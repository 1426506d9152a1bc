"""The same job in process and through real tritonservers, dynamic and continuous, to a real S3.

The servers are those of ``make triton``, with their models loaded before the clock runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import tritonclient.grpc as triton_grpc

from benchmarks.contest import Pictures, largest_difference, read_pictures
from benchmarks.environment import as_environment, our_environment
from benchmarks.goals import TRITON_BATCH as BATCH
from benchmarks.results import Served
from benchmarks.ways.imagemill import PRECISIONS
from jobs.triton_export import export
from tests.seaweedfs import SeaweedFS
from tests.triton_environment import ensure
from tests.triton_server import TritonServer

IN_PROCESS, DYNAMIC, CONTINUOUS = WAYS = ("in process", "dynamic", "continuous")
_EXACT = PRECISIONS["float32"]


class ThroughTriton:
    """An S3 server and a tritonserver for each mode, which stay up for all turns."""

    def __init__(self, folder: Path, model: str, servers: Mapping[str, TritonServer]) -> None:
        self._folder = folder
        self._model = model
        self._servers = servers
        self._first: dict[int, Pictures] = {}

    @classmethod
    @contextmanager
    def open(cls, folder: Path, model: str) -> Iterator[ThroughTriton]:
        """Start the servers, with the settings of memory allocation that a worker has.

        Raises:
            RuntimeError: one did not start.
        """
        ensure()
        with ExitStack() as stack:
            store = stack.enter_context(SeaweedFS(folder / "s3"))
            stack.enter_context(as_environment(store.environment()))
            servers = {}
            for mode in (DYNAMIC, CONTINUOUS):
                repository = folder / mode / "models"
                export(model, str(repository), [*_settings(), f"triton.mode={mode}"])
                with as_environment(our_environment()):
                    server = TritonServer(folder / mode, repository)
                    servers[mode] = stack.enter_context(server)
            yield cls(folder, model, servers)

    def run(self, way: str, turn: int, rows: Path) -> Served:
        """One whole run, and what became of it.

        Raises:
            RuntimeError: it failed; with the end of its log.
        """
        output = f"s3://images/{way.replace(' ', '-')}-{turn}"
        server = self._servers.get(way)
        before = _batches(server)
        whole_s = self._whole_run(way, rows, output)
        after = _batches(server)
        made = self._fetch(output)
        pictures = read_pictures(made)
        first = self._first.setdefault(turn, pictures)
        counts = {size: after[size] - before.get(size, 0) for size in after}
        return Served(
            way=way,
            turn=turn,
            images=len(pictures),
            whole_s=whole_s,
            flowing_s=_flowing_s(made),
            step_rows=_fill(made) * BATCH,
            batches={str(size): count for size, count in sorted(counts.items()) if count},
            difference=largest_difference(first, pictures),
        )

    def _whole_run(self, way: str, rows: Path, output: str) -> float:
        server = self._servers.get(way)
        more = [f"model.path={self._model}", *_settings()]
        if server is not None:
            address = f"triton.url=grpc://{server.grpc}"
            more = ["engine=triton", address, f"triton.model={_model_of(server)}"]
        places = [f"input.path={rows}", f"output.path={output}"]
        log = self._folder / f"{output.rpartition('/')[2]}.log"
        began_s = time.monotonic()
        with log.open("wb") as stream:
            done = subprocess.run(
                [sys.executable, "-m", "jobs.entry", "run", *places, *more],
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{way} ended with status {done.returncode}: {end}")
        return time.monotonic() - began_s

    def _fetch(self, output: str) -> Path:
        """The output as a folder of this machine."""
        files, path = fsspec.core.url_to_fs(output)
        local = self._folder / "fetched" / output.rpartition("/")[2]
        for part in ("metadata", "images", "workers"):
            files.get(f"{path}/{part}", str(local / part), recursive=True)
        pq.write_table(pq.read_table(local / "metadata"), local / "metadata.parquet")
        return local


def _settings() -> list[str]:
    return [f"engine.max_batch={BATCH}", *_EXACT]


def _model_of(server: TritonServer) -> str:
    (folder,) = server.repository.iterdir()
    return folder.name


def _batches(server: TritonServer | None) -> dict[int, int]:
    """How many batches of each size the server has executed; none of no server."""
    if server is None:
        return {}
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        told = client.get_inference_statistics(_model_of(server)).model_stats
    return {
        entry.batch_size: entry.compute_infer.count for one in told for entry in one.batch_stats
    }


def _flowing_s(made: Path) -> float:
    """From the first image's start to the last one's end."""
    columns = ["started_at", "finished_at"]
    times = pq.read_table(made / "metadata.parquet", columns=columns).to_pylist()
    first = min(row["started_at"] for row in times)
    seconds: float = (max(row["finished_at"] for row in times) - first).total_seconds()
    return seconds


def _fill(made: Path) -> float:
    """Occupied slots of all offered ones, from the workers' stamps."""
    stamps = [json.loads(path.read_text()) for path in (made / "workers").glob("*.json")]
    return sum(one["occupied"] for one in stamps) / sum(one["offered"] for one in stamps)
