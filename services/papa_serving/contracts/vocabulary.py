"""Prompts for a backbone that knows a handful of words: what is meant is read, what is unknown is named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache

_TOKEN = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_FILLERS = frozenset(["a", "an", "the", "of", "in", "on", "with", "and", "or", "some", "any", "my", "your", "please"])
_SHORTEST_GUESS = 4
"""Letters of the shortest word that is taken for a misspelling."""
_LONGEST_GUESS = 24
"""Letters of the longest one."""
_GUESSES = 8
"""Words of one prompt that may be misspellings; further unknown ones are left out. Comparing costs time."""
_SIMILAR = 0.8
"""difflib's ratio from which on two words are taken for one."""


@dataclass(frozen=True)
class Reading:
    """A prompt as the backbone gets it. `read_as`: words of the caller's and what each was taken for; `unknown`: words
    that were left out, since the backbone does not know them."""

    prompt: str
    read_as: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """All words that a backbone was trained with; none where it reads any text. `near` maps further words to them, or
    to "" where a word says nothing more."""

    words: tuple[str, ...] = ()
    near: Mapping[str, str] = field(default_factory=dict)

    def read(self, prompt: str) -> Reading:
        """Keeps known words in their order, maps plurals, near words and misspellings, and leaves out all others.

        Without a vocabulary the prompt stays as it is.
        """
        if not self.words or not prompt:
            return Reading(prompt)
        kept, read_as, unknown = [], {}, []
        guessed: set[str] = set()
        for said in _TOKEN.findall(prompt.lower()) or [prompt.strip()]:
            word = self._known(said)
            if word is None and _SHORTEST_GUESS <= len(said) <= _LONGEST_GUESS:
                guessed |= {said} if len(guessed) < _GUESSES else set()
                word = self._guessed(said) if said in guessed else None
            if word is None:
                unknown.append(said)
            elif word:
                kept.append(word)
                if word != said:
                    read_as[said] = word
        return Reading(" ".join(kept), read_as, tuple(dict.fromkeys(unknown)))

    def _known(self, said: str) -> str | None:
        """A word of the vocabulary, "" for one that says nothing, None for an unknown one."""
        for form in _forms(said):
            if form in self.words:
                return form
            if form in self.near:
                return self.near[form]
        return "" if said in _FILLERS else None

    def _guessed(self, said: str) -> str | None:
        """The known word that a misspelling stands for, or None."""
        close = _closest(said, (*self.words, *self.near))
        return None if close is None else self.near.get(close, close)


@lru_cache(maxsize=1024)
def _closest(said: str, known: tuple[str, ...]) -> str | None:
    return next(iter(get_close_matches(said, known, n=1, cutoff=_SIMILAR)), None)


def _forms(word: str) -> Iterator[str]:
    """Yields the word as it is, without hyphens, and in singular and plural."""
    for each in dict.fromkeys((word, re.sub(r"[-'’]", "", word))):
        yield each
        if each.endswith("ies"):
            yield f"{each[:-3]}y"
        for ending in ("es", "s"):
            if each.endswith(ending) and len(each) > len(ending) + 1:
                yield each[: -len(ending)]
        yield f"{each}s"
