"""How many tokens of a prompt a pipeline's text encoders cannot see, where that can be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from operators.families.clip_tokens import ClipTokens

CountTruncated = Callable[[str], int]


def truncation_counter(pipeline: Any, max_tokens: int | None) -> CountTruncated:
    """Counts the tokens that no encoder sees.

    Known are CLIP tokenizers, and T5's where the pipeline has a ``max_sequence_length``; a pipeline
    with any other counts 0, since nobody tells what it does with a prompt before.
    """
    names = [name for name in pipeline.components if name.startswith("tokenizer")]
    tokenizers = [one for name in names if (one := getattr(pipeline, name)) is not None]
    counters = [_counter(pipeline, tokenizer, max_tokens) for tokenizer in tokenizers]
    known = [counter for counter in counters if counter is not None]
    if not known or len(known) < len(counters):
        return lambda text: 0
    return lambda text: min(counter(text) for counter in known)


def _counter(pipeline: Any, tokenizer: Any, max_tokens: int | None) -> CountTruncated | None:
    kind = type(tokenizer).__name__
    if kind.startswith("CLIPTokenizer"):
        return ClipTokens(pipeline, tokenizer).count_truncated
    if kind.startswith("T5Tokenizer") and max_tokens is not None:
        return lambda text: max(0, len(tokenizer(text, verbose=False).input_ids) - max_tokens)
    return None
