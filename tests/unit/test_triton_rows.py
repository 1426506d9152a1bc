"""Rows as Triton carries them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from conf.errors import RowRejected
from operators.engine import ImageResult
from operators.request import MAX_SEED
from operators.triton.rows import failure_message, read_request, result_tensors
from operators.triton_signature import FAILURE, INPUTS, OUTPUTS

ROW: dict[str, Any] = {
    "prompt": "zwölf 🦊".encode(),
    "negative_prompt": b"",
    "seed": MAX_SEED,
    "steps": 7,
    "guidance_scale": 2.5,
    "sampler": b"ddim",
    "width": 64,
    "height": 96,
}
_NUMPY = {"BYTES": np.object_, "INT64": np.int64, "INT32": np.int32, "FP64": np.float64}
_TRITON = {
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.object_): "BYTES",
}


def tensors(**other: Any) -> dict[str, Any]:
    row = ROW | other
    return {
        name: np.array([[row[name]]], dtype=_NUMPY[one.datatype]) for name, one in INPUTS.items()
    }


def test_a_row_is_read_with_all_its_values() -> None:
    request = read_request(tensors(), number=5, max_pixels=10_000)
    assert (request.row_id, request.prompt, request.negative_prompt) == (5, "zwölf 🦊", "")
    assert (request.seed, request.steps, request.guidance_scale) == (MAX_SEED, 7, 2.5)
    assert (request.sampler, request.width, request.height) == ("ddim", 64, 96)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"prompt": b" "}, "empty_prompt"),
        ({"prompt": b"\xff"}, "bad_prompt"),
        ({"sampler": b"\xff"}, "bad_sampler"),
        ({"sampler": b"dim"}, "unknown_sampler"),
        ({"seed": -1}, "bad_seed"),
        ({"steps": 0}, "bad_steps"),
        ({"guidance_scale": float("nan")}, "bad_guidance_scale"),
        ({"width": 128}, "bad_size"),
    ],
)
def test_a_value_that_no_image_can_have_is_rejected(other: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        read_request(tensors(**other), number=0, max_pixels=10_000)
    assert (caught.value.stage, caught.value.reason) == ("read", reason)


def test_a_result_has_the_outputs_of_the_signature() -> None:
    result = ImageResult(
        request=read_request(tensors(), number=0, max_pixels=10_000),
        pixels=np.zeros((96, 64, 3), np.uint8),
        device_ns=1_500_000_000,
        truncated_tokens=3,
        started_at_ns=0,
        finished_at_ns=0,
        batch_rows=6,
    )
    found = result_tensors(result, revision="r1")
    assert list(found) == list(OUTPUTS)
    for name, tensor in OUTPUTS.items():
        assert _TRITON[found[name].dtype] == tensor.datatype
        assert found[name].ndim == 1 + len(tensor.dims)
    assert found["image"].shape == (1, 96, 64, 3)
    assert [found[name].item() for name in list(OUTPUTS)[1:]] == [1.5, 6, 3, b"r1"]


def test_a_failure_says_what_the_signature_names() -> None:
    text = failure_message(
        stage="check", reason="nan", message="é", device_ns=2_000_000_000, revision="r1"
    )
    assert json.loads(text) == dict(zip(FAILURE, ("check", "nan", "é", 2.0, "r1"), strict=True))
