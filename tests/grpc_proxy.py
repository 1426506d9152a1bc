"""A proxy between a gRPC client and a server, with limits on messages as real ones have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc import aio

from operators.triton_client.loop_thread import LoopThread


@contextmanager
def proxy_to(target: str, *, request_bytes: int = -1, answer_bytes: int = -1) -> Iterator[str]:
    """host:port of a proxy that lets messages of so many bytes through, -1: any.

    Args:
        target: host:port of the server.
    """
    thread = LoopThread("proxy")
    server, channel, address = thread.wait(_start(target, request_bytes, answer_bytes))
    try:
        yield address
    finally:
        thread.wait(server.stop(None))
        thread.wait(channel.close())
        thread.close()


async def _start(
    target: str, request_bytes: int, answer_bytes: int
) -> tuple[aio.Server, aio.Channel, str]:
    channel = aio.insecure_channel(
        target, options=[("grpc.max_receive_message_length", answer_bytes)]
    )
    server = aio.server(options=[("grpc.max_receive_message_length", request_bytes)])
    server.add_generic_rpc_handlers([_Passing(channel)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, channel, f"127.0.0.1:{port}"


class _Passing(grpc.GenericRpcHandler):
    """Every call as a stream of bytes, which a call with one message each way is, too."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        call = self._channel.stream_stream(details.method)

        async def passing(
            requests: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]
        ) -> AsyncIterator[bytes]:
            try:
                async for answer in call(requests):
                    yield answer
            except aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        handler: Any = grpc.stream_stream_rpc_method_handler(passing)
        return handler
