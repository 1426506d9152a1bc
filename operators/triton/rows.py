"""One row as Triton carries it: tensors in, a request; an outcome, tensors or a failure's words.

Pure. The names and types are those of ``operators.triton_signature``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from conf.errors import RowRejected
from operators.engine import ImageResult
from operators.request import Request, RowDefaults, parse_row
from operators.triton_signature import FAILURE, INPUTS

Tensors = Mapping[str, npt.NDArray[Any]]
_NEVER_NULL = 1
"""Every input is there, so that no default is ever taken."""


def read_request(tensors: Tensors, *, number: int, max_pixels: int) -> Request:
    """The request of all ``INPUTS``, each an array of shape [1, 1].

    Raises:
        RowRejected: stage ``read``: more than one row, or a value that no image can have.
    """
    row: dict[str, Any] = {}
    for name, tensor in INPUTS.items():
        values = tensors[name]
        if values.size != 1:
            message = f"the request holds {values.size} rows in '{name}'; expected 1 row a request"
            raise RowRejected(stage="read", reason="many_rows", message=message)
        value = values.reshape(-1)[0]
        row[name] = _text(name, value) if tensor.datatype == "BYTES" else value.item()
    return parse_row(row, row_id=number, defaults=_limits(max_pixels))[0]


def _text(name: str, value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            message = f"{name} is not UTF-8 ({error}); expected text in UTF-8"
            raise RowRejected(stage="read", reason=f"bad_{name}", message=message) from error
    return str(value)


def _limits(max_pixels: int) -> RowDefaults:
    return RowDefaults(
        negative_prompt="",
        width=_NEVER_NULL,
        height=_NEVER_NULL,
        steps=_NEVER_NULL,
        guidance_scale=_NEVER_NULL,
        sampler="",
        num_images=1,
        job_seed=0,
        max_pixels=max_pixels,
    )


def result_tensors(result: ImageResult, *, revision: str) -> dict[str, npt.NDArray[Any]]:
    """All ``OUTPUTS`` of an image, with a batch axis of 1 in front; ``revision`` is the model's."""
    return {
        "image": result.pixels[None],
        "gpu_seconds": np.array([[result.device_ns / 1e9]], dtype=np.float64),
        "batch_rows": np.array([[result.batch_rows]], dtype=np.int32),
        "truncated_tokens": np.array([[result.truncated_tokens]], dtype=np.int32),
        "revision": np.array([[revision.encode()]], dtype=np.object_),
    }


def failure_message(*, stage: str, reason: str, message: str, device_ns: int, revision: str) -> str:
    """The JSON that the error of a failed row carries; ``revision`` is the model's."""
    values = (stage, reason, message, device_ns / 1e9, revision)
    return json.dumps(dict(zip(FAILURE, values, strict=True)))
