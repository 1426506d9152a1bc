"""A request as the tensors of a Triton model, and the tensors that it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult

from operators.engine import Pixels
from operators.request import Request
from operators.triton_client.errors import Cause, RowFailure, ServerError
from operators.triton_signature import INPUTS, OUTPUTS

_NUMBERS: Mapping[str, Any] = {"INT64": np.int64, "INT32": np.int32, "FP64": np.float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An image from a server. ``pixels`` is H x W x 3; ``batch_rows`` shared its ticks, on average.
    ``revision``: of the files of the model that made it."""

    pixels: Pixels
    gpu_seconds: float
    batch_rows: int
    truncated_tokens: int
    revision: str


def inputs_of(request: Request) -> list[InferInput]:
    """The request as a batch of one row.

    Raises:
        ServerError: its text is none that UTF-8 can carry.
    """
    inputs = []
    for name, tensor in INPUTS.items():
        value = getattr(request, name)
        if tensor.datatype == "BYTES":
            filled = np.array([[_bytes(name, value)]], dtype=np.object_)
        else:
            filled = np.array([[value]], dtype=_NUMBERS[tensor.datatype])
        one = InferInput(name, [1, *tensor.dims], tensor.datatype)
        one.set_data_from_numpy(filled)
        inputs.append(one)
    return inputs


def outputs_wanted() -> list[InferRequestedOutput]:
    """All outputs of the signature."""
    return [InferRequestedOutput(name) for name in OUTPUTS]


def answer_of(result: InferResult, request: Request) -> Answer:
    """What the model made of a request.

    Raises:
        ServerError: the answer is not what the signature says, or an image of another size.
    """
    found = {name: result.as_numpy(name) for name in OUTPUTS}
    lacking = [name for name, value in found.items() if value is None or not value.size]
    if lacking:
        raise ServerError(Cause.UNFIT, f"its answer has no output '{lacking[0]}'")
    image = found["image"]
    wanted = (1, request.height, request.width, 3)
    if image.shape != wanted or image.dtype != np.uint8:
        raise ServerError(
            Cause.UNFIT,
            f"its answer has an image of shape {list(image.shape)} and type {image.dtype}; "
            f"expected {list(wanted)} and uint8",
        )
    return Answer(
        pixels=image[0],
        gpu_seconds=_seconds(found["gpu_seconds"].item()),
        batch_rows=int(found["batch_rows"].item()),
        truncated_tokens=int(found["truncated_tokens"].item()),
        revision=found["revision"].item().decode(errors="replace"),
    )


def _seconds(value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ServerError(Cause.UNFIT, f"its answer has gpu_seconds {value}; expected 0 or more")
    return value


def _bytes(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        message = f"{name} holds half a character, which no server takes ({error}); mend the text"
        row = RowFailure(stage="condition", reason=f"bad_{name}", message=message)
        raise ServerError(Cause.ROW, message, row=row) from error
