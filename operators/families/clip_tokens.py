"""Texts as a CLIP text encoder reads them: one tokenizer of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.families.family import Text


class ClipTokens:
    """The tokenizer, with the words that textual inversion added to it, if the pipeline can."""

    def __init__(self, pipeline: Any, tokenizer: Any) -> None:
        self._pipeline = pipeline
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_encoder
        self._has_vector_words = hasattr(pipeline, "maybe_convert_prompt") and any(
            f"{word}_1" in added for word in added
        )

    def read(self, texts: Sequence[Text]) -> Any:
        """``input_ids`` and ``attention_mask`` [texts, tokens] on the CPU, cut and padded."""
        return self._tokenizer(
            [self._written_out(text) for text in texts],
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )

    def count_truncated(self, text: Text) -> int:
        """How many tokens of ``text`` are cut off."""
        tokens = self._tokenizer(self._written_out(text), verbose=False).input_ids
        return max(0, len(tokens) - int(self._tokenizer.model_max_length))

    def _written_out(self, text: Text) -> str:
        """Textual-inversion words of several vectors become several tokens."""
        if not text or not self._has_vector_words:
            return text or ""
        return str(self._pipeline.maybe_convert_prompt(text, self._tokenizer))
