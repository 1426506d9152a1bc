"""How often the denoiser sees a row for its guidance. Knows nothing of torch, so that a dry run
can count without it.

Most models see a guided row twice, with its prompt and with its negative prompt. Some were
distilled from guided ones: they see every row once and are told its scale, or not even that.
"""

from __future__ import annotations

from conf.schema import ModelConfig
from operators.model_source import peek_class

ONE_PASS_PIPELINES = frozenset({"FluxPipeline"})
"""The pipeline classes whose families have ``two_pass_guidance`` False."""


def has_two_pass_guidance(model: ModelConfig) -> bool:
    """Whether guidance is a second pass with this model; one that is not here counts so."""
    found = peek_class(model.path, revision=model.revision, config=model.config)
    return found not in ONE_PASS_PIPELINES


def guidance_passes(guidance_scale: float, *, two_pass_guidance: bool) -> int:
    """Rows of the forward pass that one image needs: 2 with a guidance pass, else 1."""
    return 2 if two_pass_guidance and guidance_scale > 1 else 1
