"""What is said of rows that could not be made, and which failures are the device's own."""

from __future__ import annotations

import pytest
import torch

from operators.row_errors import nan_image, row_error
from operators.splitting import BatchCaps, run_split

CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def test_a_failure_says_what_and_what_to_do_next():
    error = row_error("decode", ValueError("no such thing"))
    assert (error.stage, error.reason) == ("decode", "decode_failed")
    assert error.message == (
        "this image alone failed (ValueError: no such thing); run 'imagemill retry' if that may "
        "pass, else change the row's prompt, size or sampler"
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError(CUBLAS),
    ],
)
def test_an_image_that_fits_in_no_memory_says_so(error):
    rejected = row_error("denoise", error)
    assert (rejected.stage, rejected.reason) == ("denoise", "out_of_memory")
    assert str(error) in rejected.message
    assert rejected.message.endswith("ask for a smaller size")


def test_an_image_of_no_numbers_names_the_key_that_helps():
    error = nan_image()
    assert (error.stage, error.reason) == ("check", "nan_image")
    assert "lower guidance_scale" in error.message
    assert "engine.precision=float32" in error.message


def test_a_workspace_that_does_not_fit_halves_the_batch_and_breaks_no_device():
    caps = BatchCaps()

    def run(part):
        if len(part) > 2:
            raise RuntimeError(CUBLAS)
        return list(part)

    assert run_split(range(8), run, caps=caps, key="x") == list(range(8))
    assert caps.of("x", 8) == 2


@pytest.mark.parametrize(
    "words", ["an illegal memory access was encountered", "CUBLAS_STATUS_EXECUTION_FAILED"]
)
def test_a_broken_device_is_raised(words):
    def run(part):
        raise RuntimeError(f"CUDA error: {words}")

    with pytest.raises(RuntimeError, match=words):
        run_split(range(8), run, caps=BatchCaps(), key="x")
