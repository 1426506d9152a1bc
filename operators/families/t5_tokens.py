"""Texts as a T5 text encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import ModelUnusable
from operators.families.family import Text


class T5Tokens:
    """The tokenizer, cutting after ``limit`` tokens."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit

    def read(self, texts: Sequence[Text]) -> Any:
        """``input_ids`` and ``attention_mask`` [texts, limit] on the CPU, cut and padded."""
        return self._tokenizer(
            [text or "" for text in texts],
            padding="max_length",
            max_length=self._limit,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )

    def count_truncated(self, text: Text) -> int:
        """How many tokens of ``text`` are cut off."""
        tokens = self._tokenizer(text or "", verbose=False).input_ids
        return max(0, len(tokens) - self._limit)


def check_t5_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer that needs a package which is not installed.

    Without sentencepiece transformers takes the file for another kind, and advises to that.

    Raises:
        ModelUnusable: ``folder`` has no tokenizer.json and sentencepiece is not installed.
    """
    if (folder / "tokenizer.json").is_file() or find_spec("sentencepiece") is not None:
        return
    raise ModelUnusable(
        f"{folder} has no tokenizer.json, and the package sentencepiece, which reads a "
        "spiece.model, is not installed. Run 'pip install sentencepiece' wherever a worker runs"
    )
