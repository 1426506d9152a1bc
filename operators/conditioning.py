"""Texts become embeddings, each text once.

Prompts repeat (the empty negative prompt in every row), so embeddings are kept, the least recently
used first to go. Knows nothing of requests or slots.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from operators.families.family import Conditioning, Family, Text
from operators.splitting import BatchCaps, run_split

CACHE_BYTES = 256 << 20


class Conditioner:
    """Conditionings by text, kept up to ``cache_bytes``."""

    def __init__(self, family: Family, *, caps: BatchCaps, cache_bytes: int = CACHE_BYTES) -> None:
        self._family = family
        self._caps = caps
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._kept: OrderedDict[Text, Conditioning] = OrderedDict()

    def __contains__(self, text: Text) -> bool:
        return text in self._kept

    def condition(
        self, texts: Sequence[Text], *, batch: int
    ) -> dict[Text, Conditioning | Exception]:
        """The conditioning of each text, or the error that it causes.

        At most ``batch`` texts are encoded at once.
        """
        found: dict[Text, Conditioning | Exception] = {}
        missing = []
        for text in dict.fromkeys(texts):
            if text in self._kept:
                self._kept.move_to_end(text)
                found[text] = self._kept[text]
            else:
                missing.append(text)
        for part in self._alike(missing, batch):
            made = run_split(part, self._encode, caps=self._caps, key="text")
            found |= dict(zip(part, made, strict=True))
        for text in missing:
            self._keep(text, found[text])
        return found

    def _alike(self, texts: Sequence[Text], batch: int) -> Iterator[list[Text]]:
        """Texts of equal pieces, together at most ``batch`` pieces, but at least one text."""
        groups: dict[int, list[Text]] = {}
        for text in texts:
            groups.setdefault(self._family.pieces(text), []).append(text)
        for pieces, group in groups.items():
            most = max(1, batch // pieces)
            yield from (group[start : start + most] for start in range(0, len(group), most))

    def _encode(self, texts: Sequence[Text]) -> list[Conditioning]:
        truncated = [self._family.count_truncated(text) for text in texts]
        embedded = self._family.embed(texts)
        return [
            Conditioning(
                # a view would keep the whole batch in memory
                tensors={name: tensor[place].clone() for name, tensor in embedded.items()},
                truncated_tokens=count,
            )
            for place, count in enumerate(truncated)
        ]

    def _keep(self, text: Text, made: Conditioning | Exception) -> None:
        if isinstance(made, Exception):
            return
        self._kept[text] = made
        self._held_bytes += _bytes(text, made)
        while self._held_bytes > self._cache_bytes:
            old_text, old = self._kept.popitem(last=False)
            self._held_bytes -= _bytes(old_text, old)


def _bytes(text: Text, made: Conditioning) -> int:
    return made.bytes + 4 * len(text or "")
