"""A CLIP tokenizer whose whole vocabulary is a handful of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from string import ascii_lowercase, digits
from typing import Any

FASHION_WORDS = ("tee", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
"""Fashion-MNIST's classes, in order, each one word."""

GENERIC = "clothing"
"""The word for all of them."""

FASHION_NEAR = {
    "t-shirt": "tee", "tshirt": "tee", "top": "tee",
    "pants": "trousers", "jeans": "trousers", "slacks": "trousers", "chinos": "trousers", "leggings": "trousers",
    "sweater": "pullover", "jumper": "pullover", "hoodie": "pullover", "sweatshirt": "pullover", "jersey": "pullover",
    "gown": "dress", "frock": "dress",
    "jacket": "coat", "parka": "coat", "overcoat": "coat", "blazer": "coat",
    "heel": "sandal", "pump": "sandal", "flip-flop": "sandal", "slipper": "sandal",
    "blouse": "shirt",
    "trainer": "sneaker", "shoe": "sneaker", "footwear": "sneaker",
    "handbag": "bag", "purse": "bag", "tote": "bag", "backpack": "bag", "satchel": "bag",
    "ankle": "", "pair": "",
    "clothes": "clothing", "garment": "clothing", "outfit": "clothing", "fashion": "clothing", "anything": "clothing",
}  # fmt: skip
"""Other words for these classes. "ankle" (boot) and "pair" (of trousers) add nothing to the word beside them."""

LENGTH = 16
"""Tokens of a prompt, the first and the last among them."""

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def word_tokenizer(words: Sequence[str], length: int = LENGTH) -> Any:
    """transformers' CLIPTokenizer with one token per word; others are spelt. Words are of lower-case ASCII letters."""
    from transformers import CLIPTokenizer

    merges: Any = _merges(words)
    letters = ascii_lowercase + digits
    symbols = [*letters, *(letter + _WORD_END for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {symbol: number for number, symbol in enumerate([*dict.fromkeys(symbols), START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al., arXiv 1508.07909) until every word is one symbol."""
    spelt = [[*word[:-1], word[-1] + _WORD_END] for word in dict.fromkeys(words)]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for symbols in spelt for pair in pairwise(symbols)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelt = [_merged(symbols, best) for symbols in spelt]
    return merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result
