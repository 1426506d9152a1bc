"""A client of exported models that does nothing for whoever asks: no retries, no limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient

from operators.request import Request
from operators.triton_signature import INPUTS, OUTPUTS

_NUMPY = {"BYTES": np.object_, "INT64": np.int64, "INT32": np.int32, "FP64": np.float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An image and what came with it."""

    pixels: npt.NDArray[np.uint8]
    gpu_seconds: float
    batch_rows: int
    truncated_tokens: int


def inputs(request: Request, **other: Any) -> list[InferInput]:
    """The tensors of a request; ``other`` values replace its own, a list makes several rows."""
    return [_input(name, other.get(name, getattr(request, name))) for name in INPUTS]


async def ask(client: InferenceServerClient, model: str, request: Request) -> Reply:
    """Ask a model that answers request by request.

    Raises:
        InferenceServerException: whatever came instead of an image.
    """
    return _reply(await client.infer(model, inputs(request)))


async def ask_stream(client: InferenceServerClient, model: str, request: Request) -> Reply:
    """Ask a model that answers through streams, by a stream of its own.

    Raises:
        InferenceServerException: whatever came instead of an image.
    """
    answers = client.stream_infer(_one(model, request))
    replies = []
    try:
        async for result, error in answers:
            if error is not None:
                raise error
            replies.append(_reply(result))
    finally:
        answers.cancel()
    (reply,) = replies
    return reply


async def _one(model: str, request: Request) -> AsyncIterator[Mapping[str, Any]]:
    yield {"model_name": model, "inputs": inputs(request)}


def _input(name: str, value: Any) -> InferInput:
    kind = INPUTS[name].datatype
    values = value if isinstance(value, list) else [value]
    encoded = [one.encode() if isinstance(one, str) else one for one in values]
    tensor = InferInput(name, [len(values), 1], kind)
    tensor.set_data_from_numpy(np.array(encoded, dtype=_NUMPY[kind]).reshape(-1, 1))
    return tensor


def _reply(result: InferResult) -> Reply:
    found = {name: result.as_numpy(name)[0] for name in OUTPUTS}
    return Reply(
        pixels=found["image"],
        gpu_seconds=float(found["gpu_seconds"][0]),
        batch_rows=int(found["batch_rows"][0]),
        truncated_tokens=int(found["truncated_tokens"][0]),
    )
