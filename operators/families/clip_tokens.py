"""Texts as a CLIP text encoder reads them: one tokenizer of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from operators.families.family import Text


class ClipTokens:
    """The tokenizer, with the words that textual inversion added to it, if the pipeline can.

    Args:
        most_pieces: an encoder reads a long text in up to so many pieces, one after the other, each
            as long as it can see at once; the rest is cut off.
    """

    def __init__(self, pipeline: Any, tokenizer: Any, *, most_pieces: int = 1) -> None:
        self._pipeline = pipeline
        self._tokenizer = tokenizer
        self._length = int(tokenizer.model_max_length)
        self._most_pieces = most_pieces
        added = tokenizer.added_tokens_encoder
        self._has_vector_words = hasattr(pipeline, "maybe_convert_prompt") and any(
            f"{word}_1" in added for word in added
        )

    def read(self, texts: Sequence[Text]) -> Any:
        """``input_ids`` and ``attention_mask`` [texts, tokens] on the CPU, cut and padded."""
        return self._tokenizer(
            [self._written_out(text) for text in texts],
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )

    def pieces(self, text: Text) -> int:
        """In how many pieces ``text`` is read."""
        if self._most_pieces == 1:
            return 1
        needed = math.ceil(len(self._words(text)) / self._words_a_piece)
        return min(max(needed, 1), self._most_pieces)

    def read_pieces(self, texts: Sequence[Text], pieces: int) -> Any:
        """As ``read``, but [texts x pieces, tokens]: the pieces of each text follow each other."""
        if pieces == 1:
            return self.read(texts)
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        step = self._words_a_piece
        rows = [
            [begin, *words[start : start + step], end]
            for words in map(self._words, texts)
            for start in range(0, pieces * step, step)
        ]
        return self._tokenizer.pad(
            {"input_ids": rows}, padding="max_length", max_length=self._length, return_tensors="pt"
        )

    def count_truncated(self, text: Text) -> int:
        """How many tokens of ``text`` are cut off."""
        return max(0, len(self._words(text)) - self._most_pieces * self._words_a_piece)

    @property
    def _words_a_piece(self) -> int:
        """Tokens of a piece without its begin and its end."""
        return self._length - 2

    def _words(self, text: Text) -> list[int]:
        written = self._written_out(text)
        found: list[int] = self._tokenizer(
            written, add_special_tokens=False, verbose=False
        ).input_ids
        return found

    def _written_out(self, text: Text) -> str:
        """Textual-inversion words of several vectors become several tokens."""
        if not text or not self._has_vector_words:
            return text or ""
        return str(self._pipeline.maybe_convert_prompt(text, self._tokenizer))
