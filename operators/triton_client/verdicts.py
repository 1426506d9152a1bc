"""What is said of a row that servers could not make, and what to do."""

from __future__ import annotations

from conf.errors import RowRejected
from operators.request import Request
from operators.triton_client.errors import RowFailure


def own_failure(row: RowFailure) -> RowRejected:
    """The model's own words."""
    return RowRejected(stage=row.stage, reason=row.reason, message=row.message)


def too_large(server: str, request: Request, said: str) -> RowRejected:
    """The way to a server and back is too narrow."""
    message = too_large_words(server, request, said)
    return RowRejected(stage="denoise", reason="message_too_large", message=message)


def too_large_words(server: str, request: Request, said: str) -> str:
    """What does not get through, and what to do. Which of the two messages it was, the request or
    its answer, gRPC does not always say."""
    text = len((request.prompt + request.negative_prompt).encode(errors="replace"))
    return (
        f"{server} or what lies before it lets no message of this size through ({said}); the "
        f"request has {text:,} bytes of text, its image of {request.width}x{request.height} "
        f"{3 * request.width * request.height:,} bytes; raise the limit there (gRPC's own is "
        "4,194,304 bytes a message), or ask for a smaller size"
    )


def failed(times: int, said: str) -> RowRejected:
    """A healthy server failed for a reason of its own."""
    message = (
        f"Triton failed {times} times with this image alone ({said}); the server's log tells more; "
        "run 'imagemill retry' if that may pass"
    )
    return RowRejected(stage="denoise", reason="server_failed", message=message)


def timed_out(timeout_s: float) -> RowRejected:
    """A server that makes other images did not make this one."""
    message = (
        f"Triton made nothing of this image alone within triton.timeout_s={timeout_s:g}, and makes "
        "others; ask for fewer steps or a smaller size, or give a longer triton.timeout_s"
    )
    return RowRejected(stage="denoise", reason="row_timeout", message=message)


def killed(times: int, said: str) -> RowRejected:
    """The process of a model died each time."""
    message = (
        f"the server's model died {times} times while it made this image, the last two times no "
        f"other image of this worker ({said}); the server's log tells more; change the row's "
        "prompt, size or sampler"
    )
    return RowRejected(stage="denoise", reason="server_crash", message=message)
