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
from operators.triton_client.memory_region import Place
from operators.triton_signature import INPUTS, OUTPUTS

_IMAGE = "image"
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


def outputs_wanted(place: Place | None) -> list[InferRequestedOutput]:
    """All outputs of the signature, the image in its place where it has one."""
    wanted = {name: InferRequestedOutput(name) for name in OUTPUTS}
    if place is not None:
        wanted[_IMAGE].set_shared_memory(place.region.name, place.size, place.offset)
    return list(wanted.values())


def answer_of(result: InferResult, request: Request, place: Place | None) -> Answer:
    """What the model made of a request.

    Args:
        place: where the image is if it is not in the answer.

    Raises:
        ServerError: the answer is not what the signature says, or an image of another size.
    """
    found = {name: result.as_numpy(name) for name in OUTPUTS if name != _IMAGE}
    lacking = [name for name, value in found.items() if value is None or not value.size]
    if lacking:
        raise ServerError(Cause.UNFIT, f"its answer has no output '{lacking[0]}'")
    return Answer(
        pixels=_image(result, request, place)[0],
        gpu_seconds=_seconds(found["gpu_seconds"].item()),
        batch_rows=int(found["batch_rows"].item()),
        truncated_tokens=int(found["truncated_tokens"].item()),
        revision=found["revision"].item().decode(errors="replace"),
    )


def _image(result: InferResult, request: Request, place: Place | None) -> Pixels:
    """The image with its batch axis. Of one that Triton wrote into a place the answer has no byte;
    a server that knows of no places sends it."""
    response = result.get_response()
    found = [n for n, output in enumerate(response.outputs) if output.name == _IMAGE]
    if not found:
        raise ServerError(Cause.UNFIT, f"its answer has no output '{_IMAGE}'")
    output, sent = response.outputs[found[0]], response.raw_output_contents[found[0]]
    shape, kind = tuple(output.shape), output.datatype.lower()
    wanted = (1, request.height, request.width, 3)
    if (shape, kind) != (wanted, "uint8"):
        raise ServerError(
            Cause.UNFIT,
            f"its answer has an image of shape {list(shape)} and type {kind}; "
            f"expected {list(wanted)} and uint8",
        )
    if sent or place is None:
        image: Pixels = result.as_numpy(_IMAGE)
        return image
    written = place.read(shape)
    if written is None:
        raise ServerError(
            Cause.UNWRITTEN, "its answer has no image, and none is where it was to write it"
        )
    return written


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
