"""What a server's words mean for the request that got them."""

from __future__ import annotations

import json

import pytest

from operators.triton_client.errors import Cause, read_error

FAILURE = {
    "stage": "check",
    "reason": "nan_image",
    "message": "no numbers",
    "gpu_seconds": 0.25,
    "revision": "r1",
}


@pytest.mark.parametrize(
    ("message", "status", "cause"),
    [
        ("[request id: 7] Exceeds maximum queue size", "UNAVAILABLE", Cause.BUSY),
        ("Request timeout expired", "UNAVAILABLE", Cause.BUSY),
        ("failed to connect to all addresses", "UNAVAILABLE", Cause.UNREACHABLE),
        ("Socket closed", "UNAVAILABLE", Cause.UNREACHABLE),
        ("Stub process 'm_0' is not healthy.", "INTERNAL", Cause.DEAD_MODEL),
        ("Stub process 'm_0' is not healthy.", None, Cause.DEAD_MODEL),
        ("Request for unknown model: 'm' is not found", "NOT_FOUND", Cause.NOT_LOADED),
        ("Request for unknown model: 'm' is not found", "UNAVAILABLE", Cause.NOT_LOADED),
        ("Deadline Exceeded", "DEADLINE_EXCEEDED", Cause.TIMED_OUT),
        ("Received message larger than max (9 vs. 4)", "RESOURCE_EXHAUSTED", Cause.TOO_LARGE),
        ("gRPC message exceeds maximum size 4: 9", "RESOURCE_EXHAUSTED", Cause.TOO_LARGE),
        ("Received http2 header with status: 413", "UNKNOWN", Cause.TOO_LARGE),
        ("too many", "RESOURCE_EXHAUSTED", Cause.BUSY),
        ("no token", "UNAUTHENTICATED", Cause.REFUSED),
        ("unexpected inference input 'cfg' for model 'm'", "INVALID_ARGUMENT", Cause.UNFIT),
        ("Unable to find shared memory region: 'm-0'", "NOT_FOUND", Cause.SHARED_MEMORY),
        ("Unable to find shared memory region: 'm-0'", None, Cause.SHARED_MEMORY),
        (
            "Cannot unregister shared memory region 'm-0', it is currently in use.",
            "INTERNAL",
            Cause.SHARED_MEMORY,
        ),
        (
            "shared memory size specified with the request for output 'image' (100 bytes) should "
            "be at least 3072 bytes to hold the results",
            "INTERNAL",
            Cause.SHARED_MEMORY,
        ),
        (
            "Failed to increase the shared memory pool size for key 'triton_python_backend_shm'",
            "INTERNAL",
            Cause.FAILED,
        ),
        ("CUDA error: out of luck", "INTERNAL", Cause.FAILED),
        ("{} is no failure of a row", None, Cause.FAILED),
        ('{"stage": "check"}', None, Cause.FAILED),
    ],
)
def test_each_error_has_a_cause(message: str, status: str | None, cause: Cause) -> None:
    error = read_error(message, status)
    assert (error.cause, error.said, error.row) == (cause, message, None)
    assert str(error) == f"{cause.value}: {message}"


@pytest.mark.parametrize("before", ["", "[request id: 3] in ensemble: "])
def test_a_rows_own_failure_is_read_wherever_it_stands(before: str) -> None:
    error = read_error(before + json.dumps(FAILURE), "INTERNAL")
    assert (error.cause, error.said) == (Cause.ROW, "no numbers")
    assert error.row is not None
    row = error.row
    assert (row.stage, row.reason, row.gpu_seconds, row.revision) == (
        "check",
        "nan_image",
        0.25,
        "r1",
    )


def test_a_failure_without_a_number_of_seconds_is_nothing_we_know() -> None:
    odd = json.dumps(FAILURE | {"gpu_seconds": "many"})
    assert read_error(odd, "INTERNAL").cause is Cause.FAILED


def test_a_servers_long_story_is_cut() -> None:
    assert len(read_error("x" * 5000, "INTERNAL").said) == 601
