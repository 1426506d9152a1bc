"""What a Triton server's error means for the request that got it. Pure.

Triton tells most things by the text of a message, and through a stream by nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from operators.triton_signature import FAILURE


class Cause(Enum):
    """Who has to do something about it."""

    ROW = "the row cannot become an image"
    TOO_LARGE = "the message is larger than the server or the way to it lets through"
    BUSY = "the server takes no more requests now"
    UNREACHABLE = "the server does not answer"
    TIMED_OUT = "the answer did not come in time"
    NOT_LOADED = "the server has not loaded the model"
    DEAD_MODEL = "the process of the server's model died"
    REFUSED = "the server does not let us in"
    UNFIT = "the model takes other requests than ours"
    SHARED_MEMORY = "the server cannot write an image into our memory"
    UNWRITTEN = "the image is said to be in our memory, and is not"
    FAILED = "it failed, nobody knows why"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFailure:
    """What the model said of a row, as ``triton_signature.FAILURE`` has it. ``revision`` is that of
    the model; None: it was never asked."""

    stage: str
    reason: str
    message: str
    gpu_seconds: float = 0.0
    revision: str | None = None


class ServerError(Exception):
    """A request to a server failed. ``said``: in the server's words; ``row`` is set for ``ROW``."""

    def __init__(self, cause: Cause, said: str, *, row: RowFailure | None = None) -> None:
        super().__init__(f"{cause.value}: {said}")
        self.cause = cause
        self.said = said
        self.row = row


_BY_TEXT = (
    ("maximum queue size", Cause.BUSY),
    ("request timeout expired", Cause.BUSY),
    ("stub process", Cause.DEAD_MODEL),
    ("the engine is lost", Cause.DEAD_MODEL),
    ("request for unknown model", Cause.NOT_LOADED),
    ("is not ready", Cause.NOT_LOADED),
    ("has no available versions", Cause.NOT_LOADED),
    ("shared memory region", Cause.SHARED_MEMORY),
    ("shared memory size specified", Cause.SHARED_MEMORY),
    ("larger than max", Cause.TOO_LARGE),
    ("message exceeds maximum size", Cause.TOO_LARGE),
    ("header with status: 413", Cause.TOO_LARGE),
    ("unexpected shape for input", Cause.UNFIT),
    ("unexpected inference input", Cause.UNFIT),
    ("unexpected datatype", Cause.UNFIT),
    ("expected data-type", Cause.UNFIT),
    ("expected number of inputs", Cause.UNFIT),
    ("inference inputs but got", Cause.UNFIT),
    ("unexpected inference output", Cause.UNFIT),
)
_BY_STATUS = {
    "UNAVAILABLE": Cause.UNREACHABLE,
    "CANCELLED": Cause.UNREACHABLE,
    "DEADLINE_EXCEEDED": Cause.TIMED_OUT,
    "RESOURCE_EXHAUSTED": Cause.BUSY,
    "UNAUTHENTICATED": Cause.REFUSED,
    "PERMISSION_DENIED": Cause.REFUSED,
    "NOT_FOUND": Cause.NOT_LOADED,
    "UNIMPLEMENTED": Cause.REFUSED,
}
_LONGEST = 600


def read_error(message: str, status: str | None) -> ServerError:
    """The error behind what a server or gRPC says.

    Args:
        status: gRPC's, such as ``UNAVAILABLE``; None where a stream carried the error.
    """
    row = _row_failure(message)
    if row is not None:
        return ServerError(Cause.ROW, row.message, row=row)
    said = message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
    lowered = message.lower()
    for text, cause in _BY_TEXT:
        if text in lowered:
            return ServerError(cause, said)
    return ServerError(_BY_STATUS.get(status or "", Cause.FAILED), said)


def _row_failure(message: str) -> RowFailure | None:
    start = message.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(message, start)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(name in found for name in FAILURE):
        return None
    try:
        spent = float(found["gpu_seconds"])
    except (TypeError, ValueError):
        return None
    return RowFailure(
        stage=str(found["stage"]),
        reason=str(found["reason"]),
        message=str(found["message"]),
        gpu_seconds=spent,
        revision=str(found["revision"]),
    )
