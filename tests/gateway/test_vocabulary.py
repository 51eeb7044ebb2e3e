"""A prompt for a backbone that knows a handful of words: what becomes of each word of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from papa_serving.contracts import vocabulary
from papa_serving.contracts.vocabulary import Reading, Vocabulary

CLOTHES = Vocabulary(
    ("tee", "trousers", "dress", "sneaker", "bag", "boot", "clothing"),
    {"t-shirt": "tee", "jeans": "trousers", "jersey": "tee", "ankle": "", "party": "dress"},
)


@pytest.mark.parametrize(
    ("said", "prompt", "read_as", "unknown"),
    [
        ("boot", "boot", {}, ()),
        ("a Boot", "boot", {}, ()),
        ("boots", "boot", {"boots": "boot"}, ()),
        ("dresses", "dress", {"dresses": "dress"}, ()),
        ("parties", "dress", {"parties": "dress"}, ()),
        ("trouser", "trousers", {"trouser": "trousers"}, ()),
        ("t-shirts", "tee", {"t-shirts": "tee"}, ()),
        ("snaekers", "sneaker", {"snaekers": "sneaker"}, ()),
        ("an ankle boot", "boot", {}, ()),
        ("a red leather boot", "boot", {}, ("red", "leather")),
        ("boot or bag", "boot bag", {}, ()),
        ("ein rotes Kleid", "", {}, ("ein", "rotes", "kleid")),
        ("🥾", "", {}, ("🥾",)),
        ("red red", "", {}, ("red",)),
    ],
)
def test_each_word_is_kept_mapped_or_named(
    said: str, prompt: str, read_as: dict[str, str], unknown: tuple[str, ...]
) -> None:
    assert CLOTHES.read(said) == Reading(prompt, read_as, unknown)


@pytest.mark.parametrize("said", ["", "A Red, leather boot!"])
def test_without_a_vocabulary_any_text_stays_as_it_is(said: str) -> None:
    assert Vocabulary().read(said) == Reading(said)


def test_a_short_word_is_not_taken_for_a_misspelling() -> None:
    assert CLOTHES.read("bed").unknown == ("bed",)


def test_few_words_of_a_prompt_are_compared_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def none(said: str, known: Sequence[str], n: int, cutoff: float) -> list[str]:
        compared.append(said)
        return []

    monkeypatch.setattr(vocabulary, "get_close_matches", none)
    words = [f"wort{number}" for number in range(100)]
    short = ["ein", "rot", "und", "gut", "bed", "sea", "sky", "sun", "ice"]
    said = " ".join([*short, "nein", "nein", "a" * 25, *words, "boots"])
    for _ in range(2):
        reading = CLOTHES.read(said)
        assert reading.prompt == "boot"
        assert reading.unknown == (*short, "nein", "a" * 25, *words)
    assert compared == ["nein", *words[:7]]
