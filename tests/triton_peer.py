"""A server that speaks Triton's gRPC and does what a test says, at the moment that it says.

For what a real server does only by chance or with many clients; the others are in tests/service.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Self

import grpc
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from conf.triton_server import TritonServerConfig
from operators.triton.repository_config import config_text
from operators.triton_signature import OUTPUTS
from tests.scripted_triton import MODEL, served

DEAD = "Stub process 'scripted_0_0' is not healthy."
NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


class Refused(Exception):
    """An error of the server: gRPC's status and its words."""

    def __init__(self, status: grpc.StatusCode, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


def refuse(status: str, said: str) -> NoReturn:
    """Answer with an error."""
    raise Refused(grpc.StatusCode[status], said)


class TritonPeer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One server with the scripted model. Its fields may be changed while it runs.

    ``answer`` hears each prompt before its image is made: it may wait, or ``refuse``. ``asked``
    hears the name of each call, which ``calls`` counts. ``dead``: the model's only process is.
    ``explicit``: it loads and unloads models. ``state`` is the model's in the index; None: as it
    is. ``rows`` is what its images say of their batch. ``version`` is Triton's; ``regions`` it has
    open, though it never writes there: ``writes_nothing`` keeps it from sending the image instead.
    """

    def __init__(self, *, instances: int = 1, max_batch: int = 4, streams: bool = False) -> None:
        self.revision = "r1"
        self.instances = instances
        self.max_batch = max_batch
        self.streams = streams
        self.explicit = True
        self.dead = False
        self.loaded = True
        self.state: str | None = None
        self.made = 0
        self.rows = 1
        self.version = "2.49.0"
        self.regions: list[str] = []
        self.writes_nothing = False
        self.batches: dict[int, int] = {}
        self.calls: Counter[str] = Counter()
        self.prompts: list[str] = []
        self.answer: Callable[[str], object] = lambda prompt: None
        self.asked: Callable[[str], object] = lambda name: None
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def grpc(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.stop(None).wait()

    def ServerLive(self, request: Any, context: Any) -> Any:
        self._count("live")
        return service_pb2.ServerLiveResponse(live=True)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._count("config")
        self._check_loaded(context)
        text = config_text(
            served(revision=self.revision, max_batch=self.max_batch),
            TritonServerConfig(mode="continuous" if self.streams else "dynamic"),
        )
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        config.instance_group[0].count = self.instances
        return service_pb2.ModelConfigResponse(config=config)

    def ModelStatistics(self, request: Any, context: Any) -> Any:
        self._count("statistics")
        self._check_loaded(context)
        found = service_pb2.ModelStatisticsResponse()
        one = found.model_stats.add(name=MODEL, version="1")
        one.inference_stats.success.count = self.made
        for size, count in self.batches.items():
            one.batch_stats.add(batch_size=size).compute_infer.count = count
        return found

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        self._count("index")
        found = service_pb2.RepositoryIndexResponse()
        state = self.state or ("READY" if self.loaded else "UNAVAILABLE")
        found.models.add(name="another", version="1", state="LOADING")
        found.models.add(name=MODEL, version="1", state=state)
        return found

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self._count("unload")
        self._check_explicit(context)
        self.loaded = False
        return service_pb2.RepositoryModelUnloadResponse()

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        self._count("load")
        self._check_explicit(context)
        self.begin_anew()
        return service_pb2.RepositoryModelLoadResponse()

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        self._count("metadata")
        return service_pb2.ServerMetadataResponse(name="triton", version=self.version)

    def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        found = service_pb2.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            found.regions[name].name = name
        return found

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        self.regions.append(request.name)
        try:
            self._count("register")
        except Refused as error:
            context.abort(error.status, error.said)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        self._count("unregister")
        self.regions = [name for name in self.regions if name != request.name]
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def ModelInfer(self, request: Any, context: Any) -> Any:
        try:
            return self._infer(request)
        except Refused as error:
            context.abort(error.status, error.said)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            try:
                yield service_pb2.ModelStreamInferResponse(infer_response=self._infer(request))
            except Refused as error:
                yield service_pb2.ModelStreamInferResponse(error_message=error.said)

    def begin_anew(self) -> None:
        """Its model's processes live, and have made nothing yet."""
        with self._lock:
            self.loaded, self.dead, self.made = True, False, 0

    def _infer(self, request: Any) -> Any:
        values = {
            one.name: raw
            for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        prompt = values["prompt"][4:].decode()
        with self._lock:
            self.prompts.append(prompt)
        self._count("infer")
        if not self.loaded:
            refuse("UNAVAILABLE", f"Request for unknown model: '{MODEL}' is not found")
        if self.dead:
            refuse("INTERNAL", DEAD)
        self.answer(prompt)
        with self._lock:
            self.made += 1
        height, width = (int.from_bytes(values[name], "little") for name in ("height", "width"))
        answer = self._image(height, width)
        region = request.outputs[0].parameters["shared_memory_region"].string_param
        if region and region not in self.regions:
            refuse("NOT_FOUND", f"Unable to find shared memory region: '{region}'")
        if region and self.writes_nothing:
            answer.raw_output_contents[0] = b""
        return answer

    def _image(self, height: int, width: int) -> Any:
        made = {
            "image": np.zeros((1, height, width, 3), np.uint8),
            "gpu_seconds": np.array([[0.001]]),
            "batch_rows": np.array([[self.rows]], np.int32),
            "truncated_tokens": np.array([[0]], np.int32),
            "revision": np.array([[self.revision.encode()]], np.object_),
        }
        answer = service_pb2.ModelInferResponse(model_version="1")
        for name, value in made.items():
            answer.outputs.add(name=name, datatype=OUTPUTS[name].datatype, shape=value.shape)
            packed = (
                serialize_byte_tensor(value).item() if value.dtype == object else value.tobytes()
            )
            answer.raw_output_contents.append(packed)
        return answer

    def _count(self, name: str) -> None:
        with self._lock:
            self.calls[name] += 1
        self.asked(name)

    def _check_explicit(self, context: Any) -> None:
        if not self.explicit:
            context.abort(grpc.StatusCode.UNAVAILABLE, NOT_EXPLICIT)

    def _check_loaded(self, context: Any) -> None:
        if not self.loaded:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{MODEL}'")
