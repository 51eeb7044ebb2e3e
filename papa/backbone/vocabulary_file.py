"""`vocabulary.json` in a backbone's folder: the words that it was trained with, and others that mean one of them.

It is no part of the backbone's hash: it changes which prompt the backbone is given, not what it draws for one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from papa.pipeline_folder import BackboneRefused

VOCABULARY_FILE = "vocabulary.json"


def write_vocabulary(folder: Path, words: Sequence[str], near: Mapping[str, str]) -> Path:
    """`near` maps a word to one of `words`, or to "" if it adds nothing. Raises ValueError for another target."""
    _check(words, near)
    path = folder / VOCABULARY_FILE
    path.write_text(json.dumps({"words": list(words), "near": dict(near)}, indent=1) + "\n")
    return path


def read_vocabulary(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Words and near words; none where the folder has no such file. Raises BackboneRefused for one of another form."""
    path = folder / VOCABULARY_FILE
    if not path.is_file():
        return (), {}
    try:
        document = json.loads(path.read_text())
        words, near = tuple(map(str, document["words"])), {str(k): str(v) for k, v in document["near"].items()}
        _check(words, near)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BackboneRefused(f"{path} is no vocabulary: {error!r}") from error
    return words, near


def _check(words: Sequence[str], near: Mapping[str, str]) -> None:
    for said, word in near.items():
        if word and word not in words:
            raise ValueError(f"{said!r} is mapped to {word!r}, which is not among the words")
