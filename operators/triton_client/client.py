"""One Triton server over gRPC. All its errors leave as ``ServerError``; only one loop uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from conf.triton_config import ServerAddress
from operators.request import Request
from operators.triton_client.access import Access
from operators.triton_client.connection import tls_advice
from operators.triton_client.errors import Cause, ServerError, read_error
from operators.triton_client.memory_region import Place
from operators.triton_client.wire import Answer, answer_of, inputs_of, outputs_wanted

T = TypeVar("T")
_CHANGING = ("LOADING", "UNLOADING")
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # a server that comes back is seen soon; gRPC itself would wait for up to two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class TritonClient:
    """A connection to one server's model. Made in the loop that uses it."""

    def __init__(self, address: ServerAddress, model: str, access: Access) -> None:
        self.address = address
        self.model = model
        self._headers = dict(access.headers)
        self._client = InferenceServerClient(
            address.target,
            creds=_credentials(access) if address.tls else None,
            channel_args=_CHANNEL,
        )

    async def live(self, *, timeout_s: float) -> None:
        """Return if the server's process answers at all."""
        answer = self._client.is_server_live(headers=self._headers, client_timeout=timeout_s)
        if not await self._said(answer, timeout_s):
            raise ServerError(Cause.UNREACHABLE, "it says that it is not live")

    async def config(self, *, timeout_s: float) -> Any:
        """The model's ``ModelConfig``."""
        answer = self._client.get_model_config(
            self.model, headers=self._headers, client_timeout=timeout_s
        )
        return (await self._said(answer, timeout_s)).config

    async def load(self, *, timeout_s: float) -> None:
        """Have the model loaded if it is not; only servers in explicit mode do that."""
        answer = self._client.load_model(
            self.model, headers=self._headers, client_timeout=timeout_s
        )
        await self._said(answer, timeout_s)

    async def load_anew(self, *, timeout_s: float) -> None:
        """Have the model's processes ended, dead or alive, and begun anew; as ``load`` otherwise.

        Loading alone does nothing while the model's files are as they were.
        """
        answer = self._client.unload_model(
            self.model, headers=self._headers, client_timeout=timeout_s
        )
        await self._said(answer, timeout_s)
        await self.load(timeout_s=timeout_s)

    async def models(self, *, timeout_s: float) -> list[str]:
        """The names in the server's repository."""
        return sorted({model.name for model in await self._index(timeout_s)})

    async def changing(self, *, timeout_s: float) -> bool:
        """Whether the model is being loaded or unloaded now."""
        found = await self._index(timeout_s)
        return any(model.name == self.model and model.state in _CHANGING for model in found)

    async def batches(self, *, timeout_s: float) -> dict[int, int]:
        """How many batches of each size the server has run since it loaded the model."""
        counts: dict[int, int] = {}
        for model in await self._statistics(timeout_s):
            for batch in model.batch_stats:
                size = int(batch.batch_size)
                counts[size] = counts.get(size, 0) + int(batch.compute_infer.count)
        return counts

    async def made(self, *, timeout_s: float) -> int:
        """How many requests the server has answered with an image since it loaded the model."""
        found = await self._statistics(timeout_s)
        return sum(int(model.inference_stats.success.count) for model in found)

    async def version(self, *, timeout_s: float) -> str:
        """The server's own, as 2.51.0."""
        answer = self._client.get_server_metadata(headers=self._headers, client_timeout=timeout_s)
        return str((await self._said(answer, timeout_s)).version)

    async def regions(self, *, timeout_s: float) -> list[str]:
        """The names of the regions of system shared memory that the server has open."""
        answer = self._client.get_system_shared_memory_status(
            headers=self._headers, client_timeout=timeout_s
        )
        return sorted((await self._said(answer, timeout_s)).regions)

    async def register(self, name: str, size: int, *, timeout_s: float) -> None:
        """Have the server open the file of this name and size in its /dev/shm as a region."""
        answer = self._client.register_system_shared_memory(
            name, f"/{name}", size, headers=self._headers, client_timeout=timeout_s
        )
        await self._said(answer, timeout_s)

    async def unregister(self, name: str, *, timeout_s: float) -> None:
        """Have the server close a region, if it has it; it refuses while a request writes there."""
        answer = self._client.unregister_system_shared_memory(
            name, headers=self._headers, client_timeout=timeout_s
        )
        await self._said(answer, timeout_s)

    async def infer(
        self,
        request: Request,
        place: Place | None,
        *,
        streams: bool,
        priority: int,
        timeout_s: float,
    ) -> Answer:
        """Have an image made, and written to its place if there is one. Cancelling the call cancels
        it on the server."""
        asked = {
            "model_name": self.model,
            "inputs": inputs_of(request),
            "outputs": outputs_wanted(place),
            "request_id": request.image_id,
            "priority": priority,
        }
        if streams:
            answer = self._stream(asked, timeout_s)
        else:
            answer = self._client.infer(**asked, headers=self._headers, client_timeout=timeout_s)
        return answer_of(await self._said(answer, timeout_s), request, place)

    async def close(self) -> None:
        """End the connection and what is under way on it."""
        await self._client.close()

    async def _index(self, timeout_s: float) -> Any:
        answer = self._client.get_model_repository_index(
            headers=self._headers, client_timeout=timeout_s
        )
        return (await self._said(answer, timeout_s)).models

    async def _statistics(self, timeout_s: float) -> Any:
        answer = self._client.get_inference_statistics(
            self.model, headers=self._headers, client_timeout=timeout_s
        )
        return (await self._said(answer, timeout_s)).model_stats

    async def _stream(self, asked: dict[str, Any], timeout_s: float) -> InferResult:
        """A stream for one request: an error in it names no request, so it must be the only one."""

        async def only() -> AsyncIterator[dict[str, Any]]:
            yield asked

        answers = self._client.stream_infer(only(), stream_timeout=timeout_s, headers=self._headers)
        found: InferResult | None = None
        async for result, error in answers:
            if error is not None:
                raise error
            if result.get_response().outputs:
                found = result
        if found is None:
            raise ServerError(Cause.FAILED, "it ended the stream without an image")
        return found

    async def _said(self, answer: Awaitable[T], timeout_s: float) -> T:
        """What the server answers; gRPC's own deadline is not trusted to end a call."""
        try:
            async with asyncio.timeout(timeout_s + 1):
                return await answer
        except TimeoutError as error:
            raise ServerError(Cause.TIMED_OUT, f"no answer within {timeout_s:g} s") from error
        except InferenceServerException as error:
            status = str(error.status() or "").removeprefix("StatusCode.") or None
            raise self._read(error.message() or "", status) from error
        except grpc.aio.AioRpcError as error:
            raise self._read(error.details() or "", error.code().name) from error

    def _read(self, message: str, status: str | None) -> ServerError:
        error = read_error(message, status)
        if error.cause is not Cause.UNREACHABLE:
            return error
        advice = tls_advice(self.address, message)
        if advice is None:
            return error
        cause = Cause.REFUSED if advice.certain else Cause.UNREACHABLE
        return ServerError(cause, f"{advice.text} ({error.said})")


def _credentials(access: Access) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=access.root_certificates,
        private_key=access.private_key,
        certificate_chain=access.certificate_chain,
    )
