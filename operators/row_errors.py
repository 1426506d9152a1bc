"""What is said of a row that an engine could not make."""

from __future__ import annotations

from conf.errors import RowRejected
from operators.splitting import is_out_of_memory


def row_error(stage: str, error: Exception) -> RowRejected:
    """Why a stage failed for this row alone, in the words of whatever raised, and what to do."""
    said = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        message = f"this image alone does not fit in memory ({said}); ask for a smaller size"
        return RowRejected(stage=stage, reason="out_of_memory", message=message)
    message = (
        f"this image alone failed ({said}); run 'imagemill retry' if that may pass, else change "
        "the row's prompt, size or sampler"
    )
    return RowRejected(stage=stage, reason=f"{stage}_failed", message=message)


def nan_image() -> RowRejected:
    """An image that is no picture."""
    message = (
        "the image holds values that are no numbers; lower guidance_scale, or make the row in a "
        "job with engine.precision=float32"
    )
    return RowRejected(stage="check", reason="nan_image", message=message)
