"""How a diffusers pipeline class is called: which values of a request it takes.

Reads the signature of ``__call__``; loads no weights. Knows nothing of engines.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from conf.errors import ConfigError, ModelUnusable, RowRejected
from operators.families.loading import silent_diffusers
from operators.model_files import ModelFiles
from operators.request import Request, RowDefaults
from operators.sampler_names import OWN_SAMPLER

_NEEDED = ("prompt", "num_inference_steps", "generator")
_OTHER_OUTPUT = {
    "num_frames": "videos",
    "video_length": "videos",
    "audio_length_in_s": "sound",
    "audio_end_in_s": "sound",
    "audio_duration": "sound",
    "audio_duration_s": "sound",
}
"""What a pipeline makes that takes such a value."""
_OTHER_INPUT = ("control_image", "control_video", "mask_image", "gligen_images")
"""Names that only pipelines have which cannot do without; their defaults of None say otherwise."""
_FIXED = {"clean_caption": False, "use_resolution_binning": False, "output_type": "np"}
"""Given wherever they are taken: prompts are not rewritten, images have the size asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCall:
    """A pipeline class and the names of what it takes; ``max_tokens`` is its own default limit."""

    pipeline_class: str
    takes: frozenset[str]
    has_scheduler: bool
    max_tokens: int | None

    def refusal(self, asked: Request | RowDefaults) -> tuple[str, str] | None:
        """The value that the pipeline cannot honour, by its column, and why; None if it can."""
        name = self.pipeline_class
        if asked.negative_prompt and "negative_prompt" not in self.takes:
            return "negative_prompt", f"{name} takes no negative prompt; leave it empty"
        if asked.guidance_scale > 1 and "guidance_scale" not in self.takes:
            return "guidance_scale", f"{name} takes no guidance scale; ask for 1 or less"
        if asked.sampler != OWN_SAMPLER and not self.has_scheduler:
            return "sampler", f"{name} has no scheduler to exchange; ask for {OWN_SAMPLER}"
        return None

    def check_row(self, request: Request) -> None:
        """Check that the pipeline can do what a row asks.

        Raises:
            RowRejected: ``not_supported``, with the column.
        """
        found = self.refusal(request)
        if found is not None:
            column, why = found
            raise RowRejected(
                stage="denoise",
                reason="not_supported",
                message=f"{column} is {getattr(request, column)!r}, but {why}",
            )

    def arguments(self, requests: Sequence[Request]) -> dict[str, Any]:
        """What ``__call__`` is given for requests that differ in texts and seeds alone."""
        first = requests[0]
        given: dict[str, Any] = {
            **_FIXED,
            "prompt": [request.prompt for request in requests],
            "num_inference_steps": first.steps,
            "guidance_scale": first.guidance_scale,
            "height": first.height,
            "width": first.width,
            "generator": [torch.Generator("cpu").manual_seed(r.seed) for r in requests],
        }
        if first.negative_prompt:
            given["negative_prompt"] = [request.negative_prompt for request in requests]
        return {name: value for name, value in given.items() if name in self.takes}


def pipeline_call(files: ModelFiles) -> PipelineCall:
    """How the pipeline of a model is called.

    Raises:
        ModelUnusable: diffusers has no such class, or it does not make images from text alone.
    """
    name = files.pipeline_class
    with silent_diffusers():  # only now does diffusers import the class, and transformers with it
        cls = getattr(diffusers, name, None)
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise ModelUnusable(
            f"the model in {files.path} is a {name}, which diffusers {diffusers.__version__} does "
            "not have. Install a newer diffusers, or set model.path to another model"
        )
    parameters = inspect.signature(cls.__call__).parameters
    missing = [one for one in _NEEDED if one not in parameters]
    more = [
        one.name
        for one in list(parameters.values())[1:]
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    more = [one for one in more if one not in (*_NEEDED, "height", "width", "guidance_scale")]
    made = next((kind for taken, kind in _OTHER_OUTPUT.items() if taken in parameters), None)
    more += [one for one in _OTHER_INPUT if one in parameters]
    wrong = [f"makes {made}"] if made else []
    wrong += [f"takes no {one}" for one in missing] + [f"also needs {one}" for one in more]
    wrong += [] if "height" in parameters else ["takes no height"]
    if wrong:
        raise ModelUnusable(
            f"the model in {files.path} is a {name}, which {wrong[0]}; expected a pipeline that "
            "makes images from text, steps and seed. Set model.path to another model"
        )
    limit = parameters.get("max_sequence_length")
    return PipelineCall(
        pipeline_class=name,
        takes=frozenset(parameters),
        has_scheduler="scheduler" in files.components,
        max_tokens=limit.default if limit and isinstance(limit.default, int) else None,
    )


def check_defaults(files: ModelFiles, defaults: RowDefaults) -> None:
    """Check that the pipeline can do what the configuration asks of every row.

    Raises:
        ConfigError: the key, and why not.
        ModelUnusable: see ``pipeline_call``.
    """
    found = pipeline_call(files).refusal(defaults)
    if found is not None:
        column, why = found
        value = getattr(defaults, column)
        raise ConfigError(
            f"{column} is {value!r} where a row gives none (sampling.{column}, or the model's own "
            f"default), but {why}: set sampling.{column}"
        )
