"""Models larger than a GPU: weights wait in the machine's memory until they are needed.

The moving itself is diffusers'. Written for GPUs; what of it runs on a CPU is tested there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from conf.errors import OptionRefused
from operators.families.family import Family, Tensors, Text
from operators.model_options import pipeline_of
from operators.safe_vae import to_float32


def loads_on(offload: str, device: torch.device) -> torch.device:
    """Where the weights go at first: what is offloaded never fills the GPU as a whole.

    Raises:
        OptionRefused: there is no GPU to keep free.
    """
    if offload == "off":
        return device
    if device.type != "cuda":
        raise OptionRefused(
            f"engine.offload={offload} keeps weights out of a GPU's memory, and the worker has no "
            "GPU; expected off. Give engine.offload=off, or a worker with a GPU"
        )
    return torch.device("cpu")


def offload(family: Family, how: str, *, device: torch.device) -> Family:
    """The family, computing on ``device`` with weights that wait as ``engine.offload`` says.

    Layers that come and go cannot change their precision any more: a VAE in float16 is made float32
    first, so that nothing need be decoded again.
    """
    if how == "off":
        return family
    pipeline = pipeline_of(family)
    family.device = device  # type: ignore[misc]
    if how != "model" and pipeline.vae.dtype == torch.float16:
        to_float32(pipeline.vae)
    offload_pipeline(pipeline, how, device=device)
    return cast(Family, _PartByPart(family, pipeline)) if how == "model" else family


def offload_pipeline(pipeline: Any, how: str, *, device: torch.device) -> None:
    """Let a pipeline compute on ``device`` with weights that wait as ``engine.offload`` says."""
    if how == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif how == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    elif how == "group":
        pipeline.enable_group_offload(
            onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda"
        )


class _PartByPart:
    """A family of which one part at a time is on the GPU.

    Diffusers moves the text encoders out when the denoiser comes, but expects them before it: ours
    come again whenever rows enter, so the denoiser has to leave first.
    """

    def __init__(self, family: Family, pipeline: Any) -> None:
        self._family = family
        self._pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def embed(self, texts: Sequence[Text]) -> Tensors:
        """See ``operators.families.family.Family``."""
        self._pipeline.maybe_free_model_hooks()
        return self._family.embed(texts)
