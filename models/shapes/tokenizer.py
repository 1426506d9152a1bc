"""A CLIP tokenizer learnt from the grammar's own words.

Owns the vocabulary: 256 bytes, 256 bytes that end a word, the merges, and two special tokens.
Every word of the grammar is one token; any other text falls back to bytes, so nothing is unknown.
"""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

END_OF_WORD = "</w>"
START = "<|startoftext|>"
END = "<|endoftext|>"
MAX_TOKENS = 32


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins of GPT-2's byte-level BPE, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable}
    shown.update({byte: chr(256 + index) for index, byte in enumerate(hidden)})
    return [shown[byte] for byte in range(256)]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first, until each word is a single symbol."""
    spelled = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(symbols) > 1 for symbols in spelled):
        counts = Counter(pair for symbols in spelled for pair in pairwise(symbols))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]
    return merges


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """A tokenizer of at most ``MAX_TOKENS`` tokens a prompt, padded with the end token."""
    merges = learn_merges(words)
    symbols = byte_symbols()
    names = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    names += list(dict.fromkeys(left + right for left, right in merges))
    vocab = {name: index for index, name in enumerate([*names, START, END])}
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


def write_slow_files(words: list[str], folder: Path) -> None:
    """``vocab.json`` and ``merges.txt`` beside ``tokenizer.json``, for older readers."""
    tokenizer = build_tokenizer(words)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in learn_merges(words))]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    vocab = dict(sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1]))
    text = json.dumps(vocab, ensure_ascii=False, indent=0)
    (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
