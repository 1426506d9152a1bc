"""What a Triton model of ImageMill takes and gives back: one place for client and server.

A request has a batch of one row. A row that fails answers with an error whose message is a JSON
object with the names of ``FAILURE``. Light: standard library only, since the server imports it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VERSION = "2"
"""Changes when a name, type or meaning here does. The model says it as ``VERSION_PARAMETER``."""
VERSION_PARAMETER = "imagemill_signature"
"""Parameter of config.pbtxt, read by clients from the model's configuration."""
MODEL_PARAMETER = "imagemill_model"
"""The model's name in reports and metadata, not its name on the server."""
REVISION_PARAMETER = "imagemill_model_revision"
"""The revision of its files, as ``operators.model_files.ModelFiles`` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A named tensor: Triton's datatype and dims without the batch axis, -1 where they vary."""

    datatype: str
    dims: tuple[int, ...]


INPUTS: Mapping[str, Tensor] = {
    "prompt": Tensor(datatype="BYTES", dims=(1,)),
    "negative_prompt": Tensor(datatype="BYTES", dims=(1,)),
    "seed": Tensor(datatype="INT64", dims=(1,)),
    "steps": Tensor(datatype="INT32", dims=(1,)),
    "guidance_scale": Tensor(datatype="FP64", dims=(1,)),
    "sampler": Tensor(datatype="BYTES", dims=(1,)),
    "width": Tensor(datatype="INT32", dims=(1,)),
    "height": Tensor(datatype="INT32", dims=(1,)),
}
OUTPUTS: Mapping[str, Tensor] = {
    # height x width x 3, RGB
    "image": Tensor(datatype="UINT8", dims=(-1, -1, 3)),
    # the image's exact share of the device's time: its sum over all requests is the busy time
    "gpu_seconds": Tensor(datatype="FP64", dims=(1,)),
    # rows that shared the image's ticks, on average, rounded
    "batch_rows": Tensor(datatype="INT32", dims=(1,)),
    "truncated_tokens": Tensor(datatype="INT32", dims=(1,)),
    # of the model's files: what the server's configuration says may be of another version by now
    "revision": Tensor(datatype="BYTES", dims=(1,)),
}
FAILURE = ("stage", "reason", "message", "gpu_seconds", "revision")
"""Of a row that cannot become an image, as ``operators.engine.ImageFailure`` has them, and the
revision as in ``OUTPUTS``."""
