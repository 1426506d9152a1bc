"""Why one row failed inside an engine, in words that a report can show."""

from __future__ import annotations

from conf.errors import RowRejected
from operators.splitting import is_out_of_memory


def row_error(stage: str, error: Exception) -> RowRejected:
    """The rejection of a row that raised ``error`` when it was run alone."""
    reason = "out_of_memory" if is_out_of_memory(error) else f"{stage}_failed"
    message = f"{type(error).__name__}: {error}"
    if reason == "out_of_memory":
        message = f"this image alone does not fit in memory ({message}); ask for a smaller size"
    return RowRejected(stage=stage, reason=reason, message=message)


def nan_image(what: str) -> RowRejected:
    """The rejection of a row whose latent or image is not finite."""
    message = f"the {what} holds values that are no numbers; lower guidance_scale or use fp32"
    return RowRejected(stage="check", reason="nan_image", message=message)
