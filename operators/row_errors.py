"""What is said of a row that an engine could not make."""

from __future__ import annotations

from conf.errors import RowRejected
from operators.splitting import is_out_of_memory


def row_error(stage: str, error: Exception) -> RowRejected:
    reason = "out_of_memory" if is_out_of_memory(error) else f"{stage}_failed"
    message = f"{type(error).__name__}: {error}"
    if reason == "out_of_memory":
        message = f"this image alone does not fit in memory ({message}); ask for a smaller size"
    return RowRejected(stage=stage, reason=reason, message=message)


def nan_image() -> RowRejected:
    message = "the image holds values that are no numbers; lower guidance_scale or use float32"
    return RowRejected(stage="check", reason="nan_image", message=message)
