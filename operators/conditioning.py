"""Texts become embeddings, each text once.

Prompts repeat (the empty negative prompt in every row), so embeddings are kept, the least recently
used first to go. Knows nothing of requests or slots.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from operators.families.stable_diffusion import StableDiffusion
from operators.splitting import BatchCaps, run_split

CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """A text as the denoiser takes it: ``embedding`` [tokens, width] on the model's device."""

    embedding: torch.Tensor
    truncated_tokens: int


class Conditioner:
    """Embeddings by text, kept up to ``cache_bytes``."""

    def __init__(
        self, family: StableDiffusion, *, caps: BatchCaps, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._family = family
        self._caps = caps
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._kept: OrderedDict[str, Conditioning] = OrderedDict()

    def __contains__(self, text: str) -> bool:
        return text in self._kept

    def condition(self, texts: Sequence[str], *, batch: int) -> dict[str, Conditioning | Exception]:
        """The conditioning of each text, or the error that it causes.

        At most ``batch`` texts are encoded at once.
        """
        found: dict[str, Conditioning | Exception] = {}
        missing = []
        for text in dict.fromkeys(texts):
            if text in self._kept:
                self._kept.move_to_end(text)
                found[text] = self._kept[text]
            else:
                missing.append(text)
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            made = run_split(part, self._encode, caps=self._caps, key="text")
            found |= dict(zip(part, made, strict=True))
        for text in missing:
            self._keep(text, found[text])
        return found

    def _encode(self, texts: Sequence[str]) -> list[Conditioning]:
        truncated = [self._family.count_truncated(text) for text in texts]
        embeddings = self._family.embed(texts)
        return [
            # a view would keep the whole batch in memory
            Conditioning(embedding=embedding.clone(), truncated_tokens=count)
            for embedding, count in zip(embeddings, truncated, strict=True)
        ]

    def _keep(self, text: str, made: Conditioning | Exception) -> None:
        if isinstance(made, Exception):
            return
        self._kept[text] = made
        self._held_bytes += _bytes(text, made)
        while self._held_bytes > self._cache_bytes:
            old_text, old = self._kept.popitem(last=False)
            self._held_bytes -= _bytes(old_text, old)


def _bytes(text: str, made: Conditioning) -> int:
    return made.embedding.nbytes + 4 * len(text)
